"""Recordings of a real server, for replay (tests/data/comfyui/README.md)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "data" / "comfyui"
NAMES = sorted(path.name for path in FOLDER.glob("*.jsonl"))


def recording(name: str) -> list[dict[str, Any]]:
    """Every record of a recording, in order."""
    return [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]


def messages(name: str) -> Iterator[tuple[dict[str, Any], str | bytes]]:
    """What the server said over its sockets: each record with the message as it was on the wire."""
    for record in recording(name):
        if record["dir"] == "in" and record["kind"] == "ws-text":
            yield record, json.dumps(record["body"])
        elif record["dir"] == "in" and record["kind"] == "ws-binary":
            yield record, frame(record)


def frame(record: dict[str, Any]) -> bytes:
    """A binary frame: its recorded head, what the head leaves out of the metadata, and an image of the right length."""
    head = base64.b64decode(record["head"])
    whole = head
    if "metadata" in record:
        about = json.dumps(record["metadata"]).encode()
        whole = head[:4] + len(about).to_bytes(4, "big") + about + bytes.fromhex(record["magic"])
        assert whole.startswith(head[: len(whole)])
    return whole + bytes(record["bytes"] - len(whole))


def histories(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every history entry of a recording that is not empty, with its prompt's id."""
    for record in recording(name):
        path = record.get("path", "").partition("?")[0]
        if record["dir"] == "in" and record["kind"] == "http" and path.startswith("/history/"):
            yield from record["body"].items()
