"""Every documented outcome of a generation (Gemini reference A4, A5, A7), and whatever else may come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import Refused, ServiceError
from emp_trio.services.gemini.answers import read_generated, read_interaction, usage

FINAL, ONCE = False, True

IMAGE = {"inlineData": {"mimeType": "image/png", "data": "UElD"}}
DRAFT = {"inlineData": {"mimeType": "image/png", "data": "RFJBRlQ="}, "thought": True}


def response(*parts: dict[str, Any], **candidate: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": "STOP"} | candidate]}


def test_the_last_image_that_is_no_draft_is_the_result() -> None:
    first = {"inlineData": {"mimeType": "image/png", "data": "Rmlyc3Q="}}
    answer = read_generated(response(DRAFT, {"text": "Here."}, first, IMAGE, DRAFT, {"text": "psst", "thought": True}))
    assert [image.data for image in answer.images] == ["Rmlyc3Q=", "UElD"]
    assert answer.text == "Here."


@pytest.mark.parametrize("finish", ["STOP", None, "MAX_TOKENS", "NO_IMAGE", "OTHER", "FINISH_REASON_UNSPECIFIED", "X"])
def test_a_draft_is_kept_where_there_is_nothing_else(finish: str | None) -> None:
    answer = read_generated(response(DRAFT, {"text": "thinking", "thought": True}, finishReason=finish))
    assert [image.data for image in answer.images] == ["RFJBRlQ="]
    assert "one of Gemini's thoughts" in " ".join(answer.warnings)
    assert answer.text == ""


def test_a_draft_of_what_was_refused_in_the_end_is_not() -> None:
    with pytest.raises(Refused):
        read_generated(response(DRAFT, finishReason="IMAGE_SAFETY"))


ENDS = (
    "MAX_TOKENS FINISH_REASON_UNSPECIFIED OTHER SAFETY IMAGE_SAFETY RECITATION NO_IMAGE MALFORMED_RESPONSE NEW".split()
)


@pytest.mark.parametrize("finish", ENDS)
def test_a_image_is_kept_whatever_the_end(finish: str) -> None:
    answer = read_generated(response(IMAGE, {"text": "Sorry."}, finishReason=finish))
    assert [image.data for image in answer.images] == ["UElD"]
    assert answer.warnings == (f"Gemini stopped ({finish}); the image that it had made is kept",)


def test_fields_in_snake_case_are_read() -> None:
    image = {"inline_data": {"mime_type": "image/webp", "data": "UElD"}}
    answer = read_generated(
        {
            "candidates": [{"content": {"parts": [image]}, "finish_reason": "MAX_TOKENS"}],
            "usage_metadata": {"prompt_token_count": 7, "total_token_count": 9},
            "model_version": "m",
            "response_id": "r",
        }
    )
    assert [(p.data, p.media_type) for p in answer.images] == [("UElD", "image/webp")]
    assert (answer.model, answer.id, answer.usage["input_tokens"]) == ("m", "r", 7)
    assert answer.warnings
    with pytest.raises(Refused, match="SAFETY"):
        read_generated({"prompt_feedback": {"block_reason": "SAFETY"}})


@pytest.mark.parametrize(
    ("part", "data"),
    [
        ({"inlineData": {"mimeType": "image/x-new", "data": "UElD"}}, "UElD"),
        ({"inlineData": {"mimeType": "application/octet-stream", "data": "UElD"}}, "UElD"),
        ({"inlineData": {"data": "data:image/png;base64,UElD"}}, "data:image/png;base64,UElD"),
        ({"fileData": {"mimeType": "image/png", "fileUri": "https://x/y.png"}}, "https://x/y.png"),
        ({"file_data": {"mime_type": "image/png", "file_uri": "https://x/y.png"}}, "https://x/y.png"),
    ],
)
def test_images_in_other_forms(part: dict[str, Any], data: str) -> None:
    assert [image.data for image in read_generated(response(part)).images] == [data]


def test_words_instead_of_a_image_are_a_refusal_that_quotes_them() -> None:
    with pytest.raises(Refused, match=r"I would rather not\. I would") as caught:
        read_generated(response({"text": "I would rather not. " * 100}))
    assert len(caught.value.message) < 600


@pytest.mark.parametrize("reason", ["SAFETY", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "OTHER", "NEW_ONE"])
def test_a_blocked_prompt_is_a_refusal(reason: str) -> None:
    with pytest.raises(Refused, match=rf"blocked the prompt \({reason}\)") as caught:
        read_generated({"promptFeedback": {"blockReason": reason}})
    assert caught.value.code == reason


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("SAFETY", "safety_filter"),
        ("RECITATION", "copyright_blocker"),
        ("BLOCKLIST", "policy_violation"),
        ("PROHIBITED_CONTENT", "policy_violation"),
        ("SPII", "personal_info"),
        ("IMAGE_SAFETY", "safety_filter"),
        ("IMAGE_PROHIBITED_CONTENT", "policy_violation"),
        ("IMAGE_RECITATION", "copyright_blocker"),
        ("LANGUAGE", "policy_violation"),
        ("ESCALATION", "policy_violation"),
    ],
)
def test_finish_reasons_that_refuse(finish: str, reason: str) -> None:
    with pytest.raises(Refused, match=rf"\({finish}\).*: No way. Sorry.") as caught:
        read_generated(response({"text": "Sorry."}, finishReason=finish, finishMessage="No way."))
    assert (caught.value.reason, caught.value.retry, caught.value.code) == (reason, False, finish)


@pytest.mark.parametrize("end", [3, ["SAFETY"], {"reason": "SAFETY"}])
def test_an_end_that_is_no_word_is_none_of_the_good_ones(end: Any) -> None:
    with pytest.raises(ServiceError, match="Gemini stopped") as caught:
        read_generated(response({"text": "x"}, finishReason=end))
    assert not caught.value.retry
    assert read_generated(response(IMAGE, finishReason=end)).warnings
    with pytest.raises(Refused, match="blocked the prompt"):
        read_generated({"promptFeedback": {"blockReason": end}})


@pytest.mark.parametrize(
    ("category", "reason"),
    [
        ("HARM_CATEGORY_HATE_SPEECH", "hate_speech"),
        ("HARM_CATEGORY_SEXUALLY_EXPLICIT", "nsfw_content"),
        ("HARM_CATEGORY_DANGEROUS_CONTENT", "violence_detected"),
        ("HARM_CATEGORY_CIVIC_INTEGRITY", "safety_filter"),
        (["HARM_CATEGORY_HATE_SPEECH"], "safety_filter"),
    ],
)
def test_the_category_that_was_blocked_says_more(category: Any, reason: str) -> None:
    ratings = [{"category": "HARM_CATEGORY_HARASSMENT"}, {"category": category, "blocked": True}]
    with pytest.raises(Refused) as caught:
        read_generated(response(finishReason="SAFETY", safetyRatings=ratings))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("given", "code", "again"),
    [
        (response(finishReason="NO_IMAGE"), "NO_IMAGE", ONCE),
        (response(finishReason="IMAGE_OTHER"), "IMAGE_OTHER", ONCE),
        (response(finishReason="OTHER"), "OTHER", ONCE),
        (response(finishReason="MALFORMED_RESPONSE"), "MALFORMED_RESPONSE", ONCE),
        (response(finishReason="MALFORMED_FUNCTION_CALL"), "MALFORMED_FUNCTION_CALL", ONCE),
        (response(finishReason="MAX_TOKENS"), "MAX_TOKENS", FINAL),
        (response(finishReason="SOMETHING_NEW"), "SOMETHING_NEW", FINAL),
        (response(), None, ONCE),
        ({"candidates": []}, None, ONCE),
        ({"candidates": None, "usageMetadata": {}}, None, ONCE),
        ({}, None, ONCE),
        ([], None, ONCE),
        (response({"inlineData": {"mimeType": "audio/wav", "data": "UElD"}}), None, ONCE),
        (response({"inlineData": {"mimeType": "image/png", "data": ""}}), None, ONCE),
    ],
)
def test_failures_that_have_run(given: Any, code: str | None, again: bool) -> None:
    with pytest.raises(ServiceError) as caught:
        read_generated(given)
    assert not isinstance(caught.value, Refused)
    assert (caught.value.code, caught.value.retry, caught.value.maybe_started) == (code, again, True)


@pytest.mark.parametrize(("code", "started"), [(429, False), (500, True), (503, False), (None, True)])
def test_an_error_in_a_good_answer_is_an_error(code: int | None, started: bool) -> None:
    with pytest.raises(ServiceError, match="went wrong") as caught:
        read_generated({"error": {"code": code, "message": "went wrong"}})
    assert caught.value.maybe_started is started


def test_a_good_candidate_counts_beside_a_bad_one() -> None:
    bad = {"content": {"parts": []}, "finishReason": "IMAGE_SAFETY"}
    answer = read_generated({"candidates": [bad, *response(IMAGE)["candidates"]]})
    assert len(answer.images) == 1


# Interactions.


def interaction(
    *content: dict[str, Any],
    status: str = "completed",
    thoughts: Any = ({"type": "image", "data": "RFJBRlQ="},),
    **fields: Any,
) -> dict[str, Any]:
    steps = [
        {"type": "thought", "content": list(thoughts)},
        {"type": "model_output", "content": list(content)},
    ]
    return {"id": "int_1", "status": status, "steps": steps} | fields


def test_images_and_words_of_an_interaction() -> None:
    first = {"type": "image", "data": "Rmlyc3Q=", "mime_type": "image/png"}
    draft = {"type": "image", "data": "RFJBRlQ=", "thought": True}
    answer = read_interaction(
        interaction(first, {"type": "text", "text": "Here."}, draft, {"type": "image", "data": "UElD"}, model="m")
    )
    assert answer is not None
    assert [image.data for image in answer.images] == ["Rmlyc3Q=", "UElD"]
    assert (answer.id, answer.text, answer.model) == ("int_1", "Here.", "m")


@pytest.mark.parametrize("status", ["completed", "incomplete", "budget_exceeded", "failed", "cancelled", "expired"])
def test_a_image_of_an_interaction_is_kept_whatever_the_end(status: str) -> None:
    answer = read_interaction(interaction({"type": "image", "data": "UElD"}, status=status))
    assert answer is not None
    assert [image.data for image in answer.images] == ["UElD"]
    assert bool(answer.warnings) is (status != "completed")


@pytest.mark.parametrize(
    ("given", "data"),
    [
        (interaction({"type": "image", "uri": "https://x/y.png"}), "https://x/y.png"),
        (interaction({"type": "image", "data": "UElD", "thought": True}, thoughts=[]), "UElD"),
        (interaction(), "RFJBRlQ="),
        ({"status": "completed", "output_image": {"type": "image", "data": "UElD"}}, "UElD"),
        ({"status": "completed", "output_image": {"data": "UElD", "mime_type": "image/png"}}, "UElD"),
    ],
)
def test_the_only_image_of_an_interaction_is_kept_wherever_it_is(given: dict[str, Any], data: str) -> None:
    answer = read_interaction(given)
    assert answer is not None
    assert [image.data for image in answer.images] == [data]


@pytest.mark.parametrize("status", ["queued", "in_progress", "something_new", None])
def test_an_interaction_without_an_end_is_waited_for(status: str | None) -> None:
    assert read_interaction({"id": "int_1", "status": status}) is None


@pytest.mark.parametrize(
    ("given", "code", "again"),
    [
        ({"status": "completed"}, None, ONCE),
        ({"status": "completed", "steps": [{"type": "thought"}]}, None, ONCE),
        (interaction({"type": "image", "uri": ""}, thoughts=[]), None, ONCE),
        ({"status": "failed", "errors": [{"code": "INTERNAL", "message": "m"}]}, "INTERNAL", ONCE),
        ({"status": "failed"}, None, ONCE),
        ({"status": "cancelled"}, "cancelled", FINAL),
        (interaction(status="incomplete"), "incomplete", FINAL),
        (interaction(status="budget_exceeded"), "budget_exceeded", FINAL),
        (interaction(status="requires_action"), "requires_action", FINAL),
        (interaction(status="requires_continuation"), "requires_continuation", FINAL),
    ],
)
def test_interactions_that_failed(given: dict[str, Any], code: str | None, again: bool) -> None:
    with pytest.raises(ServiceError) as caught:
        read_interaction(given)
    assert (caught.value.code, caught.value.retry, caught.value.maybe_started) == (code, again, True)


def test_words_of_an_interaction_instead_of_a_image_are_a_refusal() -> None:
    with pytest.raises(Refused, match="rather not"):
        read_interaction(interaction({"type": "text", "text": "I would rather not."}))


@pytest.mark.parametrize(
    "said", [None, [], {}, {"promptTokenCount": "7"}, {"promptTokenCount": True}, {"promptTokenCount": -1}]
)
def test_usage_is_not_guessed(said: Any) -> None:
    assert usage(said) == {"input_tokens": None, "output_tokens": None, "total_tokens": None}


NAMES = "candidates content parts inlineData data finishReason promptFeedback status steps type errors text".split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["STOP", "completed", "image", "model_output", "UElD"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=15,
)


@given(JSON)
def test_no_answer_breaks_it(data: Any) -> None:
    for read in (read_generated, read_interaction):
        try:
            answer = read(data if isinstance(data, dict) else {"status": data})
        except ServiceError:
            continue
        assert answer is None or answer.images
