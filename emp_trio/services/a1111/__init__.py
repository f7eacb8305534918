"""Connector of AUTOMATIC1111's web UI: pictures by its REST API, with progress polled beside it."""
