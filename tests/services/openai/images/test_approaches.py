"""Which approaches a job has, and what makes it the next one's turn."""

from __future__ import annotations

import datetime
import re
from typing import Any

import msgspec
import pytest

from emp_trio.errors import AssetError, DeadlineExceeded, InvalidJob, Refused, ServiceError
from emp_trio.services.openai.errors import describe_error, failed_response, stream_error
from emp_trio.services.openai.image_options import image_options
from emp_trio.services.openai.images.approaches import (
    APPROACHES,
    LISTED,
    Approach,
    choose_approaches,
    listed_approaches,
    next_approach,
    try_approaches,
)


def told(status: int, *, code: Any = None, param: Any = None, type: str = "invalid_request_error") -> ServiceError:
    """The error that an answer of the service is read as."""
    content = {"message": "The words.", "type": type, "param": param, "code": code}
    return describe_error(status, {}, msgspec.json.encode({"error": content}))


UNAVAILABLE = [
    told(400, param="tools"),
    told(400, param="tools", code="invalid_value"),
    told(400, param="tools", code="unsupported_parameter"),
    told(400, param="tools[0].type", code="invalid_value"),
    told(400, param="tool_choice", code="unsupported_parameter"),
    told(400, param="background", code="unsupported_parameter"),
    told(400, param="store", code="unsupported_parameter"),
    told(400, param="stream", code="unsupported_parameter"),
    told(400, param="stream", code="unsupported_value"),
    told(400, param="tools[0].partial_images", code="unsupported_parameter"),
    told(404),
    describe_error(404, {}, b""),
    describe_error(404, {"content-type": "text/html"}, b"<html>not found</html>"),
]

user_error = "image_generation_user_error"
FINAL = [
    # Refusals.
    told(400, code="moderation_blocked", type=user_error),
    told(400, code="content_policy_violation", param="tools"),
    failed_response({"code": "moderation_blocked", "message": "m"}),
    Refused("the model answered in words instead of making an image", code="no_image"),
    # Bad requests, models and sizes.
    told(400),
    told(400, code="invalid_value", param="size", type=user_error),
    told(400, code="invalid_value", param="model", type=user_error),
    told(400, code="invalid_value", param="tools[0].size"),
    told(400, code="unsupported_parameter", param="tools[0].input_fidelity"),
    told(400, code="unsupported_parameter", param="temperature"),
    told(400, code="invalid_value", param="background", type=user_error),  # the tool's option of that name
    told(400, code="unsupported_value", param="background", type=user_error),
    told(400, code="missing_required_parameter", param="input"),
    told(400, code="model_not_found", param="model"),
    told(404, code="model_not_found"),
    told(404, param="model"),
    told(413),
    told(422, param="tools"),
    # The account.
    told(401, code="invalid_api_key"),
    told(403),
    told(429, code="insufficient_quota", type="insufficient_quota"),
    told(429, code="billing_hard_limit_reached"),
    # Faults that were repeated in vain, and whatever may have been billed.
    told(408),
    told(409),
    told(429, code="rate_limit_exceeded"),
    told(500, code="server_error"),
    told(501),
    told(502),
    told(503, code="server_is_overloaded"),
    describe_error(404, {"x-should-retry": "true"}, b""),
    ServiceError("no connection", type="network_error", reason="connection_failed"),
    ServiceError("lost stream", type="network_error", reason="connection_failed", maybe_started=True),
    ServiceError("lost, and final", status=404, maybe_started=True, retry=False),
    ServiceError("poll timeout", type="timeout", reason="processing_timeout"),
    ServiceError("expired", status=404, type="response_error", reason="missing_expected_data", retry=False),
    failed_response({"code": "server_error"}),
    failed_response({"code": "invalid_image"}),
    stream_error({"type": "error", "code": "unsupported_parameter", "param": "tools"}),
    # What is no fault of the approach's.
    AssetError("storage is away"),
    InvalidJob("no prompt"),
    DeadlineExceeded("service", 60),
    RuntimeError("a bug"),
]


@pytest.mark.parametrize("error", UNAVAILABLE, ids=str)
@pytest.mark.parametrize("approach", ["background", "streaming"])
def test_an_approach_that_is_not_to_be_had_makes_room_for_the_next(error: ServiceError, approach: Approach) -> None:
    assert next_approach(error, approach)


@pytest.mark.parametrize("error", FINAL, ids=str)
@pytest.mark.parametrize("approach", APPROACHES)
def test_every_other_error_ends_the_attempt(error: Exception, approach: Approach) -> None:
    assert not next_approach(error, approach)


def test_the_images_api_is_unavailable_only_where_its_path_is() -> None:
    assert next_approach(told(404), "direct")
    assert not next_approach(told(400, param="background", code="unsupported_parameter"), "direct")


def chosen(allowed: tuple[Approach, ...], **payload: Any) -> tuple[Approach, ...]:
    options = image_options(payload, image_model="m", size="auto", quality="auto", today=datetime.date(2026, 11, 23))
    return choose_approaches(allowed, payload.get("approach"), options)


@pytest.mark.parametrize(
    ("allowed", "payload", "order"),
    [
        (APPROACHES, {}, APPROACHES),
        (("direct", "background"), {}, ("direct", "background")),
        (APPROACHES, {"approach": "streaming"}, ("streaming",)),
        (APPROACHES, {"approach": ""}, APPROACHES),
        (APPROACHES, {"n": 3}, ("direct",)),
        (APPROACHES, {"output_format": "svg"}, ("background", "direct")),
    ],
)
def test_the_order(allowed: tuple[Approach, ...], payload: dict[str, Any], order: tuple[Approach, ...]) -> None:
    assert chosen(allowed, **payload) == order


@pytest.mark.parametrize(
    ("allowed", "payload"),
    [
        (APPROACHES, {"approach": "prayer"}),
        (APPROACHES, {"approach": ["background"]}),
        (("background",), {"approach": "direct"}),
        (("background", "streaming"), {"n": 2}),
        (APPROACHES, {"approach": "background", "n": 2}),
        (("streaming",), {"output_format": "svg"}),
    ],
)
def test_what_no_approach_can_do_is_invalid(allowed: tuple[Approach, ...], payload: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob):
        chosen(allowed, **payload)


@pytest.mark.parametrize(
    ("text", "approaches"),
    [
        ("background,streaming,direct", APPROACHES),
        (" direct , background ", ("direct", "background")),
        ("direct,direct", ("direct",)),
        ("", None),
        ("direct,", None),
        ("prayer", None),
        ("direct background", None),
    ],
)
def test_a_setting_lists_them(text: str, approaches: tuple[Approach, ...] | None) -> None:
    assert (re.search(LISTED, text) is not None) is (approaches is not None)
    if approaches is not None:
        assert listed_approaches(text) == approaches


async def test_when_none_is_to_be_had_all_reasons_are_named() -> None:
    async def away() -> None:
        raise told(404)

    with pytest.raises(ServiceError, match=r"background: .*404.*; direct: .*404") as caught:
        await try_approaches(("background", "direct"), {"background": away, "direct": away})
    assert (caught.value.type, caught.value.reason, caught.value.retry) == (
        "validation_error",
        "unsupported_operation",
        False,
    )
