"""The address of the API, and the model that an address may name (Gemini reference A1, A2). Pure.

The fleet's ``GEMINI_NANO_BANANA_URL`` is the host alone, or a whole ``.../v1beta/models/{model}:generateContent``
(connector reference 7).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from emp_trio.secrets import excerpt

DEFAULT_MODEL: Final = "gemini-nano-banana-2.1"

_PATH: Final = re.compile(
    r"(?P<before>.*?)(?P<version>/v1(?:alpha|beta)?)?"
    r"(?:/models(?:/(?P<model>[^/:]+)(?::(?P<method>\w+))?)?|/interactions)?"
)
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_GONE: Final = "imagen-"
_IMAGE: Final = re.compile(r"(?i)gemini-.*(image|nano-banana)")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where the API is.

    Attributes:
        root: what the paths of the API are appended to, with its version.
        model: the model that the address named, or "".
        warnings: what was changed or left out, and what may not work.
    """

    root: str
    model: str = ""
    warnings: tuple[str, ...] = ()


def split_address(url: str) -> Address:
    """An address as it is configured, as root and model.

    Args:
        url: an absolute URL: host alone, with a prefix, with a version, or complete with model and method.

    Returns:
        the address; a version that is missing is ``v1beta``. A query is left out: keys belong into a header.
    """
    scheme, netloc, path, query, _ = urlsplit(url)
    path = path.rstrip("/")
    found = _PATH.fullmatch(path)
    before, version, model = path, None, ""
    if found is not None:
        before, version, model = found["before"], found["version"], unquote(found["model"] or "")
    warnings = []
    if query:
        warnings.append("the query of GEMINI_NANO_BANANA_URL is left out: set the key as GEMINI_API_KEY")
    if version == "/v1":
        warnings.append("GEMINI_NANO_BANANA_URL asks for version v1; options of images need v1beta")
    root = urlunsplit((scheme, netloc, before + (version or "/v1beta"), "", ""))
    return Address(root=root, model=model, warnings=tuple(warnings))


def choose_model(asked: str | None, configured: str, in_address: str) -> tuple[str, str]:
    """The model for a job: what the job asks for, else the setting, else that of the address, else the default.

    Returns:
        (model, warning); the warning is empty when there is nothing to say. A model that is gone is replaced.
    """
    name = (asked or configured or in_address or DEFAULT_MODEL).removeprefix("models/")
    if name.startswith(_GONE):
        return DEFAULT_MODEL, f"{excerpt(name, 80)} was shut down in August 2026: {DEFAULT_MODEL} is used instead"
    if not asked and configured and in_address and in_address != name:
        return name, f"GEMINI_NANO_BANANA_URL names the model {in_address}, but {name} is configured and used"
    return name, ""


def is_model_name(name: str) -> bool:
    """Whether a name can stand in a path."""
    return _MODEL.fullmatch(name) is not None


def is_image_model(name: str) -> bool:
    """Whether a model's name says that it makes images."""
    return _IMAGE.match(name) is not None
