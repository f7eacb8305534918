"""Convert values of the mapping and the environment to the types of settings. Pure."""

from __future__ import annotations

import math
from typing import Annotated, Any, get_args, get_origin

import msgspec

from emp_trio.secrets import Secret


class Unfit(Exception):
    """The value does not fit its type. Carries a reason that omits the value, and a hint. Private to this package."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def convert(value: Any, type_: Any, *, whole: bool) -> Any:
    """Convert a setting's value.

    Args:
        value: JSON value, or text after substitution.
        type_: type of the setting; text becomes a :class:`Secret`.
        whole: whether the text was exactly one reference, so that it may become a number or a boolean.

    Raises:
        Unfit: the value can't be converted.
    """
    try:
        made = msgspec.convert(value, type_, strict=not whole, dec_hook=_secret)
    except (ValueError, TypeError) as error:  # msgspec.ValidationError is a ValueError
        raise Unfit(_reason(str(error), type_), _hint(value, type_, whole=whole)) from error
    if isinstance(made, float) and not math.isfinite(made):
        raise Unfit("a finite number is wanted")
    return made


def _secret(type_: type[Any], value: Any) -> Any:
    if type_ is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError("text is wanted" if type_ is Secret else f"nothing can be made into {type_.__name__}")


def _reason(text: str, type_: Any) -> str:
    """Use msgspec's message if the value has the right JSON type; otherwise name the type that is expected."""
    kinds = {bool: "true, false, 1 or 0 is wanted", int: "a whole number is wanted", float: "a number is wanted"}
    if "got `str`" in text:
        return next((kinds[part] for part in _plain(type_) if part in kinds), text)
    return text.split(" - at `$")[0]


def _hint(value: Any, type_: Any, *, whole: bool) -> str:
    if whole or not isinstance(value, str) or not any(part in (bool, int, float) for part in _plain(type_)):
        return ""
    return "write a number without quotes, or text that is one reference such as ${NAME:-60}"


def _plain(type_: Any) -> list[Any]:
    """Return the plain types within a type: for ``Annotated[int, ...] | None``, int and None."""
    if get_origin(type_) is Annotated:
        return _plain(get_args(type_)[0])
    arguments = get_args(type_)
    return [plain for part in arguments for plain in _plain(part)] if arguments else [type_]
