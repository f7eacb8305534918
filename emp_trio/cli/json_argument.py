"""JSON objects given on the command line: as text, as ``@FILE``, or as ``-`` for standard input."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from emp_trio.errors import ConfigError
from emp_trio.printable import printable
from emp_trio.secrets.names import is_secret_name

_BYTE: Final = re.compile(r"^JSON is malformed: (?P<what>.*) \(byte (?P<at>\d+)\)$", re.DOTALL)
_TOKEN: Final = re.compile(r"""(?P<text>"(?:[^"\\]|\\.)*+"?|'(?:[^'\\]|\\.)*+'?)|(?P<word>[^\s"'{}\[\],:]+)""")
_PLAIN: Final = re.compile(r"true|false|null|NaN|-?Infinity|None|True|False|undefined")
_NAME: Final = re.compile(r"[\w .-]{1,40}")
_NUMBER: Final = re.compile(r"[-+]?[0-9.]{1,9}(?:[eE][-+]?[0-9]{1,4})?")
_CREDENTIAL: Final = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
_HARMLESS: Final = 3  # characters of a value that are shown: nobody's secret
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
    window = _hidden(line)[first : first + _WIDTH]
    number = data.count(b"\n", 0, byte) + 1
    text = f"{source}: line {number}, column {column + 1}: {what}\n  {window}\n  {' ' * (column - first)}^"
    if data.lstrip().startswith(b"{") and b'"' not in data:
        text += "\nthere is no double quote in it: put the JSON in single quotes, or in a file and give @FILE"
    return text


def _hidden(line: str) -> str:
    """A line of broken JSON without its values: one may be a credential, errors go to logs, and where a quotation mark
    is missing nobody knows what is a name. Shown are punctuation, names, ``true`` and its like, and numbers; under the
    name of a secret nothing is. Every character stays in its place."""
    parts, end, secret = [], 0, False
    for found in _TOKEN.finditer(line):
        gap = line[end : found.start()]
        secret = secret and not set(gap) & set(",}")
        text = found[0].strip("\"'") if found["text"] else found[0]
        before, after = line[: found.start()].rstrip()[-1:], line[found.end() :].lstrip()[:1]
        if after == ":" and before in ("", "{", ",") and _NAME.fullmatch(text):
            shown, secret = not _CREDENTIAL.search(text), is_secret_name(text)
        else:
            plain = found["word"] is not None and (_PLAIN.fullmatch(text) or _NUMBER.fullmatch(text))
            shown = not secret and (bool(plain) or len(text) <= _HARMLESS)
        parts += [gap, found[0] if shown else _starred(found[0])]
        end = found.end()
    return "".join([*parts, line[end:]])


def _starred(token: str) -> str:
    """Stars in place of all characters but for the quotation marks around them."""
    first = token[0] if token[0] in "\"'" else "*"
    last = token[-1] if len(token) > 1 and token[-1] == first else "*"
    return (
        token if len(token) == 1 and first != "*" else first + "*" * (len(token) - 2) + (last if len(token) > 1 else "")
    )


def _shown(line: bytes) -> str:
    """A line as one printable character per character."""
    return printable(line.decode("utf-8", "replace"))
