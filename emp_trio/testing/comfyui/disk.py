"""The folders of the fake ComfyUI: input, output and temp. They outlive a restart, as files do."""

from __future__ import annotations

import re
from typing import Final

from emp_trio.testing.png import make_png

ROOT: Final = "/srv/comfyui"
"""Where the folders are, for whoever lists a file by its whole path."""
_ANNOTATED: Final = re.compile(r"^(.*?)(?: \[(input|output|temp)\])?$")


class Disk:
    """Files by folder type, subfolder and name."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str, str], bytes] = {}

    def save(self, type: str, prefix: str, extension: str, content: bytes) -> dict[str, str]:
        """Save an output under the next free number (ComfyUI reference 4.8); returns it as outputs list it."""
        subfolder, _, stem = prefix.rpartition("/")
        pattern = re.compile(re.escape(stem) + r"_(\d{5})_\.")
        taken = [
            int(found[1])
            for kind, folder, name in self.files
            if (kind, folder) == (type, subfolder) and (found := pattern.match(name))
        ]
        name = f"{stem}_{max(taken, default=0) + 1:05}_.{extension}"
        self.files[type, subfolder, name] = content
        return {"filename": name, "subfolder": subfolder, "type": type}

    def upload(self, type: str, subfolder: str, name: str, content: bytes, *, overwrite: bool) -> dict[str, str]:
        """Store an uploaded file; another one of the same name keeps its name (2.4)."""
        stem, dot, extension = name.rpartition(".")
        stored, number = name, 1
        while not overwrite and self.files.get((type, subfolder, stored), content) != content:
            stored = f"{stem} ({number}){dot}{extension}" if dot else f"{name} ({number})"
            number += 1
        self.files[type, subfolder, stored] = content
        return {"name": stored, "subfolder": subfolder, "type": type}

    def find(self, name: str) -> bytes | None:
        """An input image as ``LoadImage`` names it: ``name``, ``subfolder/name``, ``name [temp]``."""
        found = _ANNOTATED.match(name)
        assert found is not None
        subfolder, _, stem = found[1].rpartition("/")
        return self.files.get((found[2] or "input", subfolder, stem))

    def sweep(self) -> None:
        """Empty the temp folder, as a start does."""
        self.files = {key: content for key, content in self.files.items() if key[0] != "temp"}


def content(extension: str, seed: int) -> bytes:
    """A file of a kind; another seed gives another file."""
    tail = seed.to_bytes(8, "big")
    match extension:
        case "png":
            return make_png(8, 8, seed=seed % 256) + tail
        case "mp4":
            return b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + tail
        case "flac":
            return b"fLaC\x00\x00\x00\x22" + bytes(34) + tail
        case _:
            return b"content of a file of no known kind: " + tail
