"""Make foreign text safe to display: it can't control a terminal, hide or reorder text, or forge a line. Pure.

Characters that Unicode calls not printable are replaced: control characters (C0, DEL and C1), format characters such as
bidirectional marks and zero-width characters, and line separators.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """Replace each character that is not printable with a blank; the result is one line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def escaped(text: str, *, keep: str = "") -> str:
    """Escape each character that is not printable as ``\\xNN``, ``\\uNNNN`` or ``\\UNNNNNNNN``.

    Args:
        keep: characters that are not escaped.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() or c in keep else _code(c) for c in text)


def escaped_json(text: str) -> str:
    """Escape each character of a line of JSON that is not printable as ``\\uXXXX``; the decoded value is the same."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _in_json(c) for c in text)


def _code(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _in_json(character: str) -> str:
    data = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[i]:02x}{data[i + 1]:02x}" for i in range(0, len(data), 2))
