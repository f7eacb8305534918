"""What a prompt has made: files, texts and the rest, from the outputs in its history (ComfyUI reference 5). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

_DIGITS: Final = re.compile(r"(\d+)")


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file in one of the server's folders; ``type`` is ``output`` or ``temp``."""

    node: str
    key: str
    filename: str
    subfolder: str
    type: str

    @property
    def address(self) -> dict[str, str]:
        """The query of ``GET /view``; the subfolder goes back as the server gave it."""
        return {"filename": self.filename, "subfolder": self.subfolder, "type": self.type}


class Outputs(msgspec.Struct, frozen=True, kw_only=True):
    """The outputs of a prompt; ``other`` has what is neither file nor text, by node and key."""

    files: tuple[File, ...] = ()
    texts: tuple[str, ...] = ()
    other: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)


def read_outputs(outputs: Any, *, include_temp: bool = False) -> Outputs:
    """Sort the outputs of a history entry.

    Every object with a filename is a file, whatever the key it stands under: films are listed as images, and node packs
    have keys of their own. Previews (``temp``) count only where there is no other file.

    Args:
        outputs: ``outputs`` of the entry.
        include_temp: return previews in any case.

    Returns:
        what was found, by node id and then as listed, each file once.
    """
    files: dict[tuple[str, str, str], File] = {}
    texts: list[str] = []
    other: dict[str, dict[str, Any]] = {}
    for node, key, items in _lists(outputs):
        rest = []
        for item in items:
            if isinstance(item, dict) and isinstance(item.get("filename"), str) and item["filename"]:
                file = _file(node, key, item)
                if file.type in ("output", "temp"):
                    files.setdefault((file.type, file.subfolder, file.filename), file)
            elif isinstance(item, str) and key == "text":
                texts.append(item)
            else:
                rest.append(item)
        if rest:
            other.setdefault(node, {})[key] = rest
    kept = [file for file in files.values() if file.type == "output"]
    if include_temp or not kept:
        kept = list(files.values())
    return Outputs(files=tuple(kept), texts=tuple(texts), other=other)


def _lists(outputs: Any) -> Iterator[tuple[str, str, list[Any]]]:
    if not isinstance(outputs, dict):
        return
    for node in sorted(outputs, key=_natural):
        shown = outputs[node]
        for key, items in shown.items() if isinstance(shown, dict) else ():
            yield node, key, items if isinstance(items, list) else [items]


def _file(node: str, key: str, item: dict[str, Any]) -> File:
    subfolder, kind = item.get("subfolder"), item.get("type")
    return File(
        node=node,
        key=key,
        filename=item["filename"],
        subfolder=subfolder if isinstance(subfolder, str) else "",
        type=kind if isinstance(kind, str) and kind else "output",
    )


def _natural(text: str) -> list[Any]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _DIGITS.split(text) if part]
