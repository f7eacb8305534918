"""Read the outputs of a prompt from its history entry (ComfyUI reference 5). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from emp_trio.assets.media import is_media_name

_DIGITS: Final = re.compile(r"(\d+)")
_FOLDERS: Final = ("output", "temp")
_ADDRESS: Final = re.compile(r"(?!data:)[a-z][a-z0-9+.-]{0,20}://")
_DEEPEST: Final = 4
_LONGEST_PATH: Final = 1024


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file in one of the server's folders.

    Attributes:
        type: ``output`` or ``temp``.
        guessed: a node has listed it by its path alone.
    """

    node: str
    key: str
    filename: str
    subfolder: str
    type: str
    guessed: bool = False

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

    Every object with a filename is a file, whatever the key it stands under and however deep: films are listed as
    images, and node packs have forms of their own. Previews (``temp``) count only where there is no other file, and a
    path alone only where there is no preview either.

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
            found = list(files_in(node, key, item))
            for file in found:
                files.setdefault((file.type, file.subfolder, file.filename), file)
            if isinstance(item, str) and key == "text":
                texts.append(item)
            elif not found or found[0].guessed:
                rest.append(item)
        if rest:
            other.setdefault(node, {})[key] = rest
    sure = [file for file in files.values() if not file.guessed]
    kept = [file for file in sure if file.type == "output"]
    if include_temp or not kept:
        kept = sure or list(files.values())
    return Outputs(files=tuple(kept), texts=tuple(texts), other=other)


def files_in(node: str, key: str, item: Any, depth: int = _DEEPEST) -> Iterator[File]:
    """The files that one thing listed by a node names, as they stand in it."""
    if isinstance(item, str):
        if key != "text" and depth == _DEEPEST and _is_path(item):
            subfolder, _, filename = item.strip().replace("\\", "/").rpartition("/")
            yield File(node=node, key=key, filename=filename, subfolder=subfolder, type="output", guessed=True)
    elif isinstance(item, dict) and (name := _name(item)):
        kind = str(item.get("type") or "output").lower()
        if kind in _FOLDERS:
            folder = item.get("subfolder")
            yield File(
                node=node, key=key, filename=name, subfolder=folder if isinstance(folder, str) else "", type=kind
            )
    elif isinstance(item, dict | list) and depth:
        for inside in item.values() if isinstance(item, dict) else item:
            if not isinstance(inside, str):
                yield from files_in(node, key, inside, depth - 1)


def lists_files(shown: Any) -> bool:
    """Whether a node's outputs name a file, or an address elsewhere to which it has been sent."""
    found = ((key, item) for _, key, items in _lists({"": shown}) for item in items)
    return any(_sent_to(item) or next(files_in("", key, item), None) is not None for key, item in found)


def _sent_to(item: Any) -> bool:
    places = item.values() if isinstance(item, dict) else [item]
    return any(isinstance(place, str) and _ADDRESS.match(place) for place in places)


def _lists(outputs: Any) -> Iterator[tuple[str, str, list[Any]]]:
    if not isinstance(outputs, dict):
        return
    for node in sorted(outputs, key=_natural):
        shown = outputs[node]
        for key, items in shown.items() if isinstance(shown, dict) else ():
            yield node, key, items if isinstance(items, list) else [items]


def _name(item: dict[str, Any]) -> str:
    """The file's name; other names of it count where it is said in which folder the file is."""
    name = item.get("filename")
    if name is None and str(item.get("type")).lower() in _FOLDERS:
        name = item.get("name") or item.get("file")
    return name if isinstance(name, str) else ""


def _is_path(text: str) -> bool:
    return len(text) <= _LONGEST_PATH and text.isprintable() and not _ADDRESS.match(text) and is_media_name(text)


def _natural(text: str) -> list[Any]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _DIGITS.split(text) if part]
