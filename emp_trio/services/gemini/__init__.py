"""Connectors of the Gemini API (Gemini reference, part A)."""
