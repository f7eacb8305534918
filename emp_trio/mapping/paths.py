"""Format JSON paths for messages: ``$.services["openai-image"].api_config.timeout``. Pure."""

from __future__ import annotations

import json
from typing import Final

ROOT: Final = "$"
_LONGEST_KEY: Final = 80


def child(path: str, key: str | int) -> str:
    """Return the path of a member (a name) or an element (an index from 0) of the value at ``path``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if key.isidentifier() and key.isascii():
        return f"{path}.{_clip(key)}"
    return f"{path}[{json.dumps(_clip(key))}]"


def service_path(name: str, *keys: str) -> str:
    """Return the path of a worker service, or of a value in its entry."""
    return _below(child("$.services", name), keys)


def worker_path(name: str, *keys: str) -> str:
    """Return the path of a worker type, or of a value in its entry."""
    return _below(child("$.workers", name), keys)


def _below(path: str, keys: tuple[str, ...]) -> str:
    for key in keys:
        path = child(path, key)
    return path


def _clip(key: str) -> str:
    return key if len(key) <= _LONGEST_KEY else key[:_LONGEST_KEY] + "..."
