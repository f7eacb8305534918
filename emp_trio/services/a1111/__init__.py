"""Connector of AUTOMATIC1111's web UI: images by its REST API, with progress polled beside it."""
