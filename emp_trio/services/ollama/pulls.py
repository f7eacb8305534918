"""Progress of a model download (Ollama reference B4). Pure."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from emp_trio.protocols.parsing import Lenient, parse, parse_or_empty
from emp_trio.secrets import excerpt
from emp_trio.services.ollama.errors import error_line


class _Line(msgspec.Struct, frozen=True):
    """A line of a download. ``total`` and ``completed`` are bytes of the file ``digest``; a size that is none is not
    counted."""

    status: Lenient[str] = ""
    digest: Lenient[str] = ""
    total: Lenient[Annotated[int, msgspec.Meta(ge=0)]] = 0
    completed: Lenient[int] = 0
    error: Any = msgspec.UNSET


class PullProgress:
    """The lines of ``/api/pull``, told as they come.

    Attributes:
        share: from 0 to 1, of the bytes known so far; it never goes back, though further files make the sum larger.
        status: Ollama's own word for what it is doing.
    """

    def __init__(self) -> None:
        self.share = 0.0
        self.status = ""
        self._files: dict[str, tuple[int, int]] = {}

    @property
    def bytes(self) -> int:
        """Size of everything that is known to belong to the model."""
        return sum(total for _, total in self._files.values())

    def feed(self, line: Any) -> None:
        """Take the next line.

        Raises:
            ServiceError: it is an error, or no object.
        """
        said = parse(_Line, line, "a line of the download is not an object")
        if said.error is not msgspec.UNSET:
            raise error_line(line)
        self.status = excerpt(said.status, 100)
        if said.digest and said.total:
            self._files[said.digest] = (min(max(said.completed, 0), said.total), said.total)
            self.share = max(self.share, sum(done for done, _ in self._files.values()) / self.bytes)
        if pulled(line):
            self.share = 1.0


def pulled(line: Any) -> bool:
    """Whether a line says that the download is complete: only the word ``success`` does."""
    return parse_or_empty(_Line, line).status == "success"


def pull_ends(line: Any) -> bool:
    """Whether a line is the last one of a download."""
    return pulled(line) or parse_or_empty(_Line, line).error is not msgspec.UNSET
