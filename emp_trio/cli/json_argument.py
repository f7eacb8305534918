"""Parse JSON objects of the command line: text, ``@FILE``, or ``-`` for standard input."""

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
_HARMLESS: Final = 3  # values up to this length are shown: too short for a secret
_WIDTH: Final = 60  # maximum characters of a line quoted in an error


def json_argument(option: str, argument: str, *, stdin: bool = False) -> dict[str, Any]:
    """Return the JSON object of an option.

    Args:
        option: name of the option for errors, such as ``--payload``.
        argument: JSON text, or ``@`` and a file name.
        stdin: whether ``-`` reads standard input to its end.

    Raises:
        ConfigError: the file can't be read, or the text is not a JSON object. Names the option, line and column, and
            marks the position.
    """
    source, data = option, argument.encode("utf-8", "surrogateescape")
    try:
        if stdin and argument == "-":
            source, data = f"{option} (standard input)", sys.stdin.buffer.read()
        elif argument.startswith("@"):
            source, data = f"{option} ({argument[1:]})", Path(argument[1:]).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: the name has a NUL byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{option}: the file {argument[1:]!r} can't be read: {reason}") from None
    return json_object(source, data)


def json_object(source: str, data: bytes) -> dict[str, Any]:
    """Decode a JSON object. Pure.

    Args:
        source: origin of the text, for errors.

    Raises:
        ConfigError: the text is not a JSON object.
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
        malformed = _BYTE.match(str(error))
        if malformed:
            raise ConfigError(_at(source, data, int(malformed["at"]), malformed["what"])) from None
        if not data.strip():
            raise ConfigError(f"{source}: there is no text; a JSON object is expected, such as '{{}}'") from None
        raise ConfigError(_at(source, data, len(data.rstrip()), "the text ends too early")) from None
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: a JSON object is expected, this is {_KINDS.get(type(value), 'a number')}")
    return value


_KINDS: Final = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}


def _at(source: str, data: bytes, byte: int, reason: str) -> str:
    """Return the error message: position, reason, the line with a mark, and a hint if the cause is likely."""
    start = data.rfind(b"\n", 0, byte) + 1
    end = data.find(b"\n", byte)
    line = _shown(data[start : end if end >= 0 else len(data)])
    column = len(_shown(data[start:byte]))
    first = max(0, column - _WIDTH // 2)
    window = _hidden(line)[first : first + _WIDTH]
    number = data.count(b"\n", 0, byte) + 1
    text = f"{source}: line {number}, column {column + 1}: {reason}\n  {window}\n  {' ' * (column - first)}^"
    if data.lstrip().startswith(b"{") and b'"' not in data:
        text += "\nthere is no double quote in it: put the JSON in single quotes, or in a file and give @FILE"
    return text


def _hidden(line: str) -> str:
    """Mask the values in a line of broken JSON, because one may be a credential and errors go to logs.

    Keep punctuation, names, numbers, and literals such as ``true``; mask every value after the name of a secret. Keep
    the position of every character.
    """
    parts, end, secret = [], 0, False
    for token in _TOKEN.finditer(line):
        gap = line[end : token.start()]
        secret = secret and not set(gap) & set(",}")
        text = token[0].strip("\"'") if token["text"] else token[0]
        before, after = line[: token.start()].rstrip()[-1:], line[token.end() :].lstrip()[:1]
        if after == ":" and before in ("", "{", ",") and _NAME.fullmatch(text):
            shown, secret = not _CREDENTIAL.search(text), is_secret_name(text)
        else:
            plain = token["word"] is not None and (_PLAIN.fullmatch(text) or _NUMBER.fullmatch(text))
            shown = not secret and (bool(plain) or len(text) <= _HARMLESS)
        parts += [gap, token[0] if shown else _starred(token[0])]
        end = token.end()
    return "".join([*parts, line[end:]])


def _starred(token: str) -> str:
    """Replace all characters by stars, except the enclosing quotation marks."""
    first = token[0] if token[0] in "\"'" else "*"
    last = token[-1] if len(token) > 1 and token[-1] == first else "*"
    return (
        token if len(token) == 1 and first != "*" else first + "*" * (len(token) - 2) + (last if len(token) > 1 else "")
    )


def _shown(line: bytes) -> str:
    """Decode a line with exactly one printable character per character."""
    return printable(line.decode("utf-8", "replace"))
