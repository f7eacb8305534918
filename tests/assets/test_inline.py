"""Small files inside the result."""

from __future__ import annotations

import hashlib

import pytest

from emp_trio.assets.config import LARGEST_INLINE, StorageSettings, storage_settings
from emp_trio.assets.content import decode_text
from emp_trio.assets.inline import inline_asset
from emp_trio.connector_context import GeneratedFile
from emp_trio.errors import ConfigError
from emp_trio.testing.png import make_png


@pytest.mark.parametrize(
    ("data", "declared", "kind"),
    [(make_png(), "image/jpeg", "image/png"), (b"words", "text/plain", "text/plain"), (b"\xff\x00", None, None)],
)
def test_a_small_file_becomes_a_data_url(data: bytes, declared: str | None, kind: str | None) -> None:
    made = inline_asset(GeneratedFile(data=data, media_type=declared), len(data))
    assert made is not None
    assert decode_text(made.cdn_url) == (kind or "application/octet-stream", data)
    assert (made.inline, made.size, made.sha256) == (True, len(data), hashlib.sha256(data).hexdigest())
    assert made.output_file().metadata["cdn_url"] == ""


def test_a_larger_one_does_not() -> None:
    assert inline_asset(GeneratedFile(data=b"12345"), 4) is None


def test_the_cap_is_a_setting_with_a_cap() -> None:
    assert storage_settings({}).inline_bytes == StorageSettings().inline_bytes == 65536
    assert storage_settings({"EMP_TRIO_INLINE_MAX_BYTES": "0"}).inline_bytes == 0
    for wrong in ("-1", "much", str(LARGEST_INLINE + 1)):
        with pytest.raises(ConfigError, match="EMP_TRIO_INLINE_MAX_BYTES"):
            storage_settings({"EMP_TRIO_INLINE_MAX_BYTES": wrong})
