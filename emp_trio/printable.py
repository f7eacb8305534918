"""Texts of somebody else's where people read them: nothing in them commands a terminal, hides, turns the text around or
looks like a line of its own. Pure.

What counts is what Unicode calls not printable: control characters (C0, DEL and C1), format characters such as
bidirectional marks and those of no width, and separators of lines.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` on one line, with a blank for each character that is not printable."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def escaped(text: str, *, keep: str = "") -> str:
    """``text`` with each character that is not printable as ``\\xNN``, ``\\uNNNN`` or ``\\UNNNNNNNN``.

    Args:
        keep: characters that stay.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() or c in keep else _code(c) for c in text)


def escaped_json(text: str) -> str:
    """JSON on one line with each character that is not printable as ``\\uXXXX``: a program reads the same value."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _in_json(c) for c in text)


def _code(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _in_json(character: str) -> str:
    data = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[i]:02x}{data[i + 1]:02x}" for i in range(0, len(data), 2))
