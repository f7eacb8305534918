"""Mask secrets in texts and JSON-like values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from emp_trio.secrets.held import HELD, MARGIN, excerpt
from emp_trio.secrets.known import KnownSecrets
from emp_trio.secrets.names import is_harmless_header, is_headers_name, is_secret_name, named_secret
from emp_trio.secrets.secret import MASK, Secret
from emp_trio.secrets.shapes import without_shapes
from emp_trio.sizes import LARGE


class Redactor:
    """Masks added secrets, secrets that the process holds, and text with the format of a secret.

    Args:
        known: secrets to mask, plain or encoded; those of fewer than four characters are ignored.
    """

    def __init__(self, known: Iterable[Secret] = ()) -> None:
        self._own = KnownSecrets()
        self._own.add(known)

    def add(self, *secrets: Secret) -> None:
        """Mask more secrets, for example the credentials in the ``ctx`` of a job."""
        self._own.add(secrets)

    def forget(self, *secrets: Secret) -> None:
        """Undo one :meth:`add` of each secret."""
        self._own.forget(secrets)

    def text(self, text: str) -> str:
        """Return ``text`` with every secret replaced by ``***``."""
        if len(text) <= LARGE:
            return without_shapes(HELD.without(self._own.without(text)))
        return _in_slices(text, lambda part: without_shapes(HELD.without(self._own.without(part))), self._longest)

    def known(self, text: str) -> str:
        """Mask known secrets and their encodings only; text that merely looks secret, such as a signed URL, stays."""
        if len(text) <= LARGE:
            return HELD.without(self._own.without(text))
        return _in_slices(text, lambda part: HELD.without(self._own.without(part)), self._longest)

    def excerpt(self, text: str, limit: int) -> str:
        """Like :func:`excerpt`, with the secrets of this redactor masked, too."""
        if len(text) <= limit:
            shown = self.text(text)
            return shown if len(shown) <= limit else shown[:limit]
        head = text[: limit + max(MARGIN, 2 * self._own.longest, 2 * HELD.longest)]
        shown = self._own.without(head)
        if len(head) < len(text):
            shown = HELD.without_beginning(self._own.without_beginning(HELD.without(shown)))
        return excerpt(shown, limit)

    def known_in(self, value: Any) -> Any:
        """Return a copy of a JSON-like value with :meth:`known` applied to every text and every name."""
        match value:
            case str():
                return self.known(value)
            case dict():
                return distinct((self._name(k), self.known_in(v)) for k, v in value.items())
            case list() | tuple():
                return [self.known_in(v) for v in value]
            case _:
                return value

    def data(self, value: Any) -> Any:
        """Return a copy of a JSON-like value with :meth:`text` applied to every string.

        Secrets, values named like ``api_key``, and headers not known to be harmless become ``***``.
        """
        return self._data(value, headers=False)

    def _data(self, value: Any, *, headers: bool) -> Any:
        match value:
            case str():
                return self.text(value)
            case Secret():
                return MASK
            case dict():
                beside = named_secret(value)
                return distinct(
                    (
                        self.text(k) if isinstance(k, str) else k,
                        MASK
                        if hides(k, v) or (beside and k == "value") or (headers and not harmless(k, v))
                        else self._data(v, headers=isinstance(k, str) and is_headers_name(k)),
                    )
                    for k, v in value.items()
                )
            case list() | tuple():
                return [value[0], MASK] if named_secret(value) else [self.data(v) for v in value]
            case _:
                return value

    @property
    def _longest(self) -> int:
        return max(self._own.longest, HELD.longest)

    def _name(self, name: Any) -> Any:
        return HELD.in_name(self._own.in_name(name)) if isinstance(name, str) else name


def hides(name: Any, value: Any) -> bool:
    """Return whether the name of a member marks a secret, and its value is not empty."""
    return isinstance(name, str) and bool(value) and value is not True and is_secret_name(name)


def harmless(name: Any, value: Any) -> bool:
    """Return whether a member of a table of headers may be shown."""
    return not isinstance(value, str) or (isinstance(name, str) and is_harmless_header(name))


def distinct(members: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Build an object from members whose names masking may have made equal, without losing any."""
    made: dict[Any, Any] = {}
    alike: Counter[Any] = Counter()
    for name, value in members:
        free = name
        while free in made:
            alike[name] += 1
            free = f"{name} ({alike[name] + 1})"
        made[free] = value
    return made


def _in_slices(text: str, mask: Callable[[str], str], longest: int) -> str:
    """Apply ``mask`` to a long text in pieces, so that a thread releases the interpreter between them."""
    parts, start, reach = [], 0, max(MARGIN, 2 * longest)
    while start < len(text):
        stop = _seam(text, min(start + LARGE, len(text)), mask, reach)
        parts.append(mask(text[start:stop]))
        start = stop
    return "".join(parts)


def _seam(text: str, place: int, mask: Callable[[str], str], reach: int) -> int:
    """Return a position near ``place`` that is not inside anything to be masked."""
    for stop in range(place, min(place + 32 * reach, len(text)), reach // 8 + 1):
        before, after = text[stop - reach : stop], text[stop : stop + reach]
        if mask(before) + mask(after) == mask(before + after):
            return stop
    return min(place + 32 * reach, len(text))
