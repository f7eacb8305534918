"""Connectors of any HTTP service, by configuration alone: one call with its answer, or work under an id and polling."""
