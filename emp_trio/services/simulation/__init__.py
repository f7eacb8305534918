"""Simulated services: jobs in this process, over HTTP, or over one WebSocket."""
