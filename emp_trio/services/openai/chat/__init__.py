"""The Chat Completions API, and the connectors of texts."""
