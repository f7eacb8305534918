"""Find secrets in settings, job payloads and URLs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from emp_trio.secrets.names import is_secret_name, named_secret
from emp_trio.secrets.redactor import hides
from emp_trio.secrets.secret import Secret

_CREDENTIAL: Final = re.compile(r"(?:(?:Bearer|Basic) )?[\x21-\x7e]{6,4096}")
_IN_QUERIES: Final = frozenset("key code sig signature".split())
_SHORTEST: Final = 6  # minimum characters of a credential
_NESTED: Final = (dict, list)
_MANY: Final = 256  # maximum members searched per level of a payload


def secrets_in(settings: Any) -> tuple[Secret, ...]:
    """Return every secret in settings, including those in nested structs, URLs and paths."""
    match settings:
        case Secret():
            return (settings,)
        case str():
            return address_secrets(settings)
        case msgspec.Struct():
            parts: Iterable[Any] = (getattr(settings, name) for name in settings.__struct_fields__)
        case dict():
            parts = settings.values()
        case list() | tuple():
            parts = settings
        case _:
            return ()
    return tuple(secret for part in parts for secret in secrets_in(part))


def named_secrets(value: Any, *, most: int = 32) -> tuple[Secret, ...]:
    """Return the texts in a JSON-like value whose names mark them as secrets.

    Args:
        most: maximum number returned. Only the first three levels are searched.
    """
    found: list[Secret] = []
    level = [value]
    for _ in range(3):
        below: list[Any] = []
        for item in level[:_MANY]:
            if named_secret(item):  # name and value as two members
                beside = item["value"] if isinstance(item, dict) else item[1]
                if isinstance(beside, str) and _CREDENTIAL.fullmatch(beside):
                    found.append(Secret(beside))
            if isinstance(item, dict):
                for name, inside in item.items():
                    if isinstance(inside, str):
                        if hides(name, inside) and _CREDENTIAL.fullmatch(inside):
                            found.append(Secret(inside))
                    elif isinstance(inside, _NESTED):
                        below.append(inside)
            elif isinstance(item, list):
                below += [inside for inside in item[:_MANY] if isinstance(inside, _NESTED)]
        if not below:
            break
        level = below
    return tuple(dict.fromkeys(found[:most])) if found else ()


def url_secrets(url: Secret) -> tuple[Secret, ...]:
    """Return a URL that has passwords, and the passwords, both as written and decoded; empty without passwords.

    A password is in the user information, or in a query parameter with the name of a secret.
    """
    try:
        parts = urlsplit(url.reveal())
        found = [parts.password or ""]
        found += [
            value for name, _, value in (pair.partition("=") for pair in parts.query.split("&")) if is_secret_name(name)
        ]
    except ValueError:
        found = []
    passwords = [Secret(form) for text in found if text for form in (text, unquote(text))]
    return tuple(dict.fromkeys([url, *passwords])) if passwords else ()


def address_secrets(text: str) -> tuple[Secret, ...]:
    """Return the password of a URL, and the values of query parameters with names of secrets. Accepts a path, too."""
    if "?" not in text and "@" not in text:
        return ()
    try:
        parts = urlsplit(text)
        found = [unquote(parts.password or "")]
    except ValueError:
        return ()
    found += [value for name, value in parse_qsl(parts.query) if name.lower() in _IN_QUERIES or is_secret_name(name)]
    return tuple(Secret(value) for value in dict.fromkeys(found) if len(value) >= _SHORTEST)
