"""emp-trio: a structured-concurrency worker for Redis-backed queues of AI generation jobs."""

__version__ = "0.1.0"
