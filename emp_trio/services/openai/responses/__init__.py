"""The Responses API, and the connector of any of its requests."""
