"""Connectors of the OpenAI API."""
