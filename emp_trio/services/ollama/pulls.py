"""How far the download of a model is (Ollama reference B4). Pure."""

from __future__ import annotations

from typing import Any

from emp_trio.protocols.http.errors import bad_answer
from emp_trio.secrets import excerpt
from emp_trio.services.ollama.errors import error_line


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
        if not isinstance(line, dict):
            raise bad_answer("a line of the download is not an object", reason="invalid_response_format")
        if "error" in line:
            raise error_line(line)
        self.status = excerpt(str(line.get("status") or ""), 100)
        digest, total, completed = line.get("digest"), line.get("total"), line.get("completed", 0)
        if isinstance(digest, str) and isinstance(total, int) and isinstance(completed, int) and total > 0:
            self._files[digest] = (min(max(completed, 0), total), total)
            self.share = max(self.share, sum(done for done, _ in self._files.values()) / self.bytes)
        if pulled(line):
            self.share = 1.0


def pulled(line: Any) -> bool:
    """Whether a line says that the download is complete: only the word ``success`` does."""
    return isinstance(line, dict) and line.get("status") == "success"


def pull_ends(line: Any) -> bool:
    """Whether a line is the last one of a download."""
    return pulled(line) or (isinstance(line, dict) and "error" in line)
