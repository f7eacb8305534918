"""Connectors: one file or small package per service family. None imports another."""
