"""JSON objects given on the command line: as text, as ``@FILE``, or as ``-`` for standard input."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from emp_trio.errors import ConfigError

_BYTE: Final = re.compile(r"^JSON is malformed: (?P<what>.*) \(byte (?P<at>\d+)\)$", re.DOTALL)
_CREDENTIAL: Final = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
_WIDTH: Final = 60  # characters of the line that an error shows


def json_argument(option: str, argument: str, *, stdin: bool = False) -> dict[str, Any]:
    """The JSON object that an option was given.

    Args:
        option: its name, for errors (``--payload``).
        argument: JSON text, or ``@`` and the name of a file.
        stdin: whether ``-`` means "read standard input to its end".

    Raises:
        ConfigError: no such file, not JSON, or not an object; names the option, line and column and shows the spot.
    """
    source, data = option, argument.encode("utf-8", "surrogateescape")
    try:
        if stdin and argument == "-":
            source, data = f"{option} (standard input)", sys.stdin.buffer.read()
        elif argument.startswith("@"):
            source, data = f"{option} ({argument[1:]})", Path(argument[1:]).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: the name has a NUL byte
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{option}: the file {argument[1:]!r} can't be read: {why}") from None
    return json_object(source, data)


def json_object(source: str, data: bytes) -> dict[str, Any]:
    """Decode a JSON object. Pure.

    Args:
        source: where it is from, for errors.

    Raises:
        ConfigError: it isn't one.
    """
    try:
        value = msgspec.json.decode(data)
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: the text is not UTF-8") from None
    except RecursionError:
        raise ConfigError(f"{source}: the JSON is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}") from None
    except msgspec.DecodeError as error:
        found = _BYTE.match(str(error))
        if found:
            raise ConfigError(_at(source, data, int(found["at"]), found["what"])) from None
        if not data.strip():
            raise ConfigError(f"{source}: there is no text; a JSON object is expected, such as '{{}}'") from None
        raise ConfigError(_at(source, data, len(data.rstrip()), "the text ends too early")) from None
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: a JSON object is expected, this is {_KINDS.get(type(value), 'a number')}")
    return value


_KINDS: Final = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}


def _at(source: str, data: bytes, byte: int, what: str) -> str:
    """The error's text: place, reason, the line with a mark under the spot, and a hint where the cause is likely."""
    start = data.rfind(b"\n", 0, byte) + 1
    end = data.find(b"\n", byte)
    line = _shown(data[start : end if end >= 0 else len(data)])
    column = len(_shown(data[start:byte]))
    first = max(0, column - _WIDTH // 2)
    # A spot may lie inside of a credential, and errors go to logs.
    window = _CREDENTIAL.sub(lambda found: "*" * len(found[0]), line)[first : first + _WIDTH]
    number = data.count(b"\n", 0, byte) + 1
    text = f"{source}: line {number}, column {column + 1}: {what}\n  {window}\n  {' ' * (column - first)}^"
    if data.lstrip().startswith(b"{") and b'"' not in data:
        text += "\nthere is no double quote in it: put the JSON in single quotes, or in a file and give @FILE"
    return text


def _shown(line: bytes) -> str:
    """A line as one printable character per character."""
    text = line.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text)
