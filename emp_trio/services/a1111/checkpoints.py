"""Select the model, and verify which one made an image (A1111 reference 10.2). Pure.

A1111 ignores the name of an unknown model silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.mapping.suggestions import did_you_mean
from emp_trio.protocols.parsing import Lenient, parse_or_empty
from emp_trio.secrets import excerpt

_STEM: Final = re.compile(r"\.(safetensors|ckpt|pt|pth)$", re.IGNORECASE)
_SHORTEST_HASH: Final = 8


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``/sd-models``; hashes are empty where the server has not made them yet."""

    title: Annotated[str, msgspec.Meta(min_length=1)]
    model_name: Lenient[str] = ""
    hash: Lenient[str] = ""
    sha256: Lenient[str] = ""
    filename: Lenient[str] = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What the server itself takes for a name."""
        return tuple(filter(None, (self.title, self.model_name, self.hash, self.filename)))

    @property
    def stem(self) -> str:
        """The name of its file, without folder and extension."""
        return _stem(self.filename or self.title)


class _MadeBy(msgspec.Struct, frozen=True):
    """What ``info`` says of the model."""

    sd_model_name: Lenient[str] = ""
    sd_model_hash: Lenient[str] = ""


def read_checkpoints(answer: Any) -> tuple[Checkpoint, ...]:
    """An answer of ``/sd-models``; entries without a title are left out."""
    return parse_or_empty(tuple[Lenient[Checkpoint], ...], answer)


def find_checkpoint(name: str, checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The model that a job means by ``name``: one of the server's own names for it, or that of its file.

    Raises:
        ServiceError: (model_not_found) the server has none; another may.
    """
    found = next((entry for entry in checkpoints if name in entry.names), None)
    if found is None:
        found = next((entry for entry in checkpoints if _stem(name) == entry.stem), None)
    if found is None:
        hint = did_you_mean(name, [entry.model_name or entry.title for entry in checkpoints])
        raise ServiceError(
            f"A1111 has no model {excerpt(name, 200)!r} among its {len(checkpoints)}" + (f" ({hint})" if hint else ""),
            code="model_missing",
            type="validation_error",
            reason="model_not_found",
            retry=True,
        )
    return found


def check_made_by(info: Mapping[str, Any], wanted: Checkpoint) -> bool:
    """Check that an image is the wanted model's.

    Args:
        info: ``info`` of the answer.

    Returns:
        whether the answer names its model at all.

    Raises:
        ServiceError: (model_not_found) it was another model's.
    """
    said = parse_or_empty(_MadeBy, info)
    name, hash_ = said.sd_model_name, said.sd_model_hash
    own = [known for known in (wanted.hash, wanted.sha256) if known]
    if len(hash_) >= _SHORTEST_HASH and own:
        same = any(known.startswith(hash_) or hash_.startswith(known) for known in own)
    elif name:
        same = _stem(name) == wanted.stem or name in wanted.names
    else:
        return False
    if not same:
        raise ServiceError(
            f"A1111 has used the model {excerpt(name or hash_, 200)!r} instead of {wanted.title!r}, which it has",
            code="model_mismatch",
            type="validation_error",
            reason="model_not_found",
            retry=True,
            maybe_started=True,
        )
    return True


def _stem(name: str) -> str:
    """A file's name without folder, extension and the hash in brackets that titles have."""
    return _STEM.sub("", name.partition(" [")[0].replace("\\", "/").rpartition("/")[2])
