"""Connector of Ollama: language models and embeddings on a server of one's own."""
