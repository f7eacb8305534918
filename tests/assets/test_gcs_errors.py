"""The reasons in what a store of Google's kind, or something before it, answers."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from google.api_core.exceptions import GoogleAPICallError

from emp_trio.assets.stores.providers.gcs.errors import error_reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"errors": [{"reason": "quotaExceeded"}]}}', "quotaExceeded"),
        (b'{"error": {"code": NaN, "errors": [{"reason": "quotaExceeded"}]}}', "quotaExceeded"),
        (b'{"error": {"errors": {"reason": "quotaExceeded"}}}', "quotaExceeded"),
        (b'{"error": {"errors": [{"reason": "a\\ud83d"}]}}', "a?"),
        (b'{"error": {"errors": [{"reason": 7}]}}', ""),
        (b'{"error": {"errors": {"0": {}}}}', ""),
        (b'{"error": {"errors": []}}', ""),
        (b'{"error": {"errors": "no"}}', ""),
        (b'{"error": "no"}', ""),
        (b"[]", ""),
        (b"<html>", ""),
        (b"\xff\xfe", ""),
        (b"[" * 100_000, ""),
        (b"", ""),
    ],
)
def test_the_reason_is_read_in_any_form(body: bytes, reason: str) -> None:
    response: Any = requests.Response()
    response._content = body
    assert error_reason(GoogleAPICallError("no", response=response)) == reason
