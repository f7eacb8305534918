"""What the events of a Responses stream come to (OpenAI reference 5)."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emp_trio.errors import EmpTrioError, Refused, ServiceError
from emp_trio.protocols.decoders import SseDecoder
from emp_trio.services.openai.responses.answer import Answer, read_response
from emp_trio.services.openai.responses.events import ResponseStream, fold_event
from emp_trio.testing.openai import Script
from emp_trio.testing.openai.events import frames_of
from emp_trio.testing.openai.generation import Generation
from emp_trio.testing.openai.run import Run
from emp_trio.testing.openai.script import StreamScript

IMAGE = {"type": "image_generation_call", "id": "ig_1", "status": "generating", "result": "iVBORw0KGgo="}
TOOL = {"type": "image_generation", "model": "gpt-image-2.6-flare", "partial_images": 2}


def words(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def fold(*events: Any) -> ResponseStream:
    state = ResponseStream()
    for event in events:
        state = fold_event(state, event)
    return state


def created(status: str = "queued", number: int = 0) -> dict[str, Any]:
    response = {"id": "resp_1", "status": status, "output": []}
    return {"type": "response.created", "sequence_number": number, "response": response}


def done(item: Any, number: int = 5, index: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.done", "sequence_number": number, "output_index": index, "item": item}


def end(*output: Any, kind: str = "completed", number: int = 9, **fields: Any) -> dict[str, Any]:
    response = {"id": "resp_1", "status": kind, "model": "m-1", "output": list(output)} | fields
    return {"type": f"response.{kind}", "sequence_number": number, "response": response}


def answer(state: ResponseStream, *, image: bool = False) -> Answer:
    found = state.answer(image_wanted=image, image_model=None)
    assert found is not None
    return found


def generation(script: Script, *, background: bool = True, tool: bool = False) -> Generation:
    body = {"model": "gpt-6-luna", "input": "hi", "background": background, "stream": True}
    body |= {"tools": [TOOL]} if tool else {}
    return Generation(id="resp_1", body=body, script=script, run=Run(began=0.0), created_at=0.0)


def events_of(made: Generation) -> list[dict[str, Any]]:
    decoder = SseDecoder()
    data = b"".join(frame.data for frame in frames_of(made))
    return [event.json() for event in decoder.feed(data) if event.data != "[DONE]"]


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(
    ("script", "tool"),
    [
        (Script(text="Once upon a time there was a cat."), False),
        (Script(text="Once upon", status="incomplete"), False),
        (Script(text="hi", extra=[{"type": "hologram", "id": "h"}]), False),
        (Script(images=2, text="Two cats."), True),
        (Script(images=1, stream=StreamScript(noise=True, done_marker=True)), True),
    ],
)
def test_a_stream_comes_to_the_same_answer_as_polling(script: Script, tool: bool, background: bool) -> None:
    made = generation(script, background=background, tool=tool)
    streamed = fold(*events_of(made)).answer(image_wanted=tool, image_model="m")
    polled = read_response(made.snapshot(script.status), image_wanted=tool, image_model="m")
    assert streamed == polled
    assert polled is not None


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (Script(refusal="I will not."), Refused),
        (Script(status="failed", error={"code": "moderation_blocked", "message": "No."}), Refused),
        (Script(status="failed"), ServiceError),
        (Script(status="incomplete", incomplete_reason="content_filter", text="On"), Refused),
    ],
)
def test_a_stream_comes_to_the_same_failure_as_polling(script: Script, kind: type[ServiceError]) -> None:
    made = generation(script)
    with pytest.raises(kind) as polled:
        read_response(made.snapshot(script.status), image_wanted=False)
    with pytest.raises(kind) as streamed:
        fold(*events_of(made)).answer(image_wanted=False, image_model=None)
    assert streamed.value.failure == polled.value.failure


def test_a_partial_image_is_never_the_result() -> None:
    partial = {
        "type": "response.image_generation_call.partial_image",
        "sequence_number": 3,
        "item_id": "ig_1",
        "output_index": 0,
        "partial_image_b64": "cGFydGlhbA==",
        "partial_image_index": 0,
    }
    state = fold(created(), partial, end())
    assert (state.partials, state.partial) == (1, "cGFydGlhbA==")
    with pytest.raises(ServiceError, match="neither an image nor words"):
        answer(state, image=True)


def test_a_image_of_a_finished_item_counts_where_the_last_response_leaves_it_out() -> None:
    for last in (end(), end(IMAGE | {"result": None}), end(words("here"))):
        assert answer(fold(created(), done(IMAGE), last), image=True).images[0].data == IMAGE["result"]


def test_a_image_of_the_last_response_counts_once() -> None:
    assert len(answer(fold(created(), done(IMAGE), end(IMAGE)), image=True).images) == 1


def test_finished_items_are_taken_in_the_order_of_the_output() -> None:
    state = fold(created(), done(words("world"), 4, index=1), done(words("hello"), 5, index=0), end())
    assert answer(state).text == "hello\nworld"


def test_the_last_number_is_tracked_and_events_that_come_again_change_nothing() -> None:
    delta = {"type": "response.output_text.delta", "sequence_number": 4, "delta": "four"}
    keepalive = {"type": "keepalive", "sequence_number": 7}
    state = fold(created(), delta, created("in_progress", number=2), delta, keepalive, {"type": "x"})
    assert (state.sequence, state.characters, state.status) == (7, 4, "queued")
    assert not state.ended


def test_an_end_counts_whatever_its_number() -> None:
    assert answer(fold(created(number=50), end(words("done"), number=3))).text == "done"


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(
    ("code", "kind", "retry"),
    [("server_error", ServiceError, True), ("moderation_blocked", Refused, False), ("new_code", ServiceError, False)],
)
def test_error_events_of_both_forms(nested: bool, code: str, kind: type[ServiceError], retry: bool) -> None:
    members: dict[str, Any] = {"code": code, "message": "The words.", "param": None}
    event = {"type": "error", "sequence_number": 4} | ({"error": members} if nested else members)
    state = fold(created(), event)
    assert state.ended
    with pytest.raises(kind, match="The words") as caught:
        answer(state)
    assert caught.value.retry is retry
    assert caught.value.maybe_started is (kind is ServiceError)


@pytest.mark.parametrize(
    ("event", "kind", "retry"),
    [
        ({"error": {"code": "server_error", "message": "The words."}}, ServiceError, True),
        ({"error": {"code": 402, "message": "The words."}}, ServiceError, False),
        ({"error": "The words."}, ServiceError, False),
        ({"object": "error", "message": "The words.", "code": 429}, ServiceError, True),
        (
            {"type": "response.error", "error": {"message": "The words.", "code": "rate_limit_exceeded"}},
            ServiceError,
            True,
        ),
        ({"detail": "The words."}, ServiceError, False),
        ({"message": "The words.", "code": "content_filter"}, Refused, False),
    ],
)
def test_an_error_at_the_top_of_an_event_is_one(event: Any, kind: type[ServiceError], retry: bool) -> None:
    for state in (fold(event), fold(created(), event)):
        assert state.ended
        with pytest.raises(kind, match="The words") as caught:
            answer(state)
        assert caught.value.retry is retry


def test_a_whole_response_in_place_of_a_stream_is_the_answer() -> None:
    whole = {"id": "resp_9", "object": "response", "status": "completed", "output": [words("all of it")]}
    found = answer(fold(whole))
    assert (found.response_id, found.text) == ("resp_9", "all of it")
    assert answer(fold({"output": [words("all of it")]})).text == "all of it"
    begun = fold({"id": "resp_9", "object": "response", "status": "queued", "output": []})
    assert (begun.ended, begun.response_id, begun.status) == (False, "resp_9", "queued")
    failed = {
        "id": "resp_9",
        "object": "response",
        "status": "failed",
        "output": [],
        "error": {"message": "The words."},
    }
    with pytest.raises(ServiceError, match="The words"):
        answer(fold(failed))


def test_words_that_come_in_pieces_alone_are_the_answer() -> None:
    pieces = [{"type": "response.output_text.delta", "delta": piece} for piece in ("all of", " it\ud83d", "\ude00")]
    found = answer(fold(created(), *pieces, end()))
    assert (found.text, found.truncated) == ("all of it\U0001f600", False)
    assert (
        answer(fold(created(), *pieces, end(words("the words at the end count")))).text == "the words at the end count"
    )
    many = [{"type": "response.output_text.delta", "delta": "x"}] * 50_000
    assert len(answer(fold(created(), *many, end())).text) == 50_000


def test_there_is_no_answer_before_the_end() -> None:
    assert fold(created(), done(words("hi"))).answer(image_wanted=False, image_model=None) is None


def test_a_response_without_id_or_status_gets_them_from_the_stream() -> None:
    last = {"type": "response.completed", "response": {"output": [words("hi")]}}
    assert answer(fold(created(), last)).response_id == "resp_1"
    assert answer(fold(last)).text == "hi"


TYPES = st.sampled_from(
    "response.created response.in_progress response.output_text.delta response.output_item.done response.completed "
    "response.failed response.incomplete error keepalive response.image_generation_call.partial_image".split()
)
NAMES = "sequence_number response item delta output_index partial_image_b64 error code output status id type".split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=6,
)
EVENTS = JSON | st.builds(
    lambda kind, rest: rest | {"type": kind}, TYPES, st.dictionaries(st.sampled_from(NAMES), JSON)
)


@example([{"type": ["response.completed"]}], False)
@given(st.lists(EVENTS, max_size=6), st.booleans())
def test_no_event_is_fatal(events: list[Any], wanted: bool) -> None:
    with contextlib.suppress(EmpTrioError):
        fold(*events).answer(image_wanted=wanted, image_model=None)


@pytest.mark.parametrize("status", ["completed", "COMPLETED", "succeeded", "incomplete", "failed"])
def test_an_event_of_another_name_ends_a_stream_by_its_response(status: str) -> None:
    delta = {"type": "response.output_text.delta", "sequence_number": 1, "delta": "hi"}
    last = {"type": "response.done", "sequence_number": 2, "response": {"id": "resp_1", "status": status, "output": []}}
    state = fold(created(), delta, last)
    assert state.ended
    assert answer(state).text == "hi"
    assert not fold(created("in_progress"), delta, {**last, "response": {"status": "in_progress"}}).ended
    assert not fold(created("something_new"), delta).ended


def test_words_that_come_at_their_end_alone_are_words() -> None:
    told = {"type": "response.output_text.done", "sequence_number": 1, "text": "hi"}
    assert answer(fold(created(), told, end())).text == "hi"
    delta = {"type": "response.output_text.delta", "sequence_number": 1, "delta": "hi"}
    assert answer(fold(created(), delta, told | {"sequence_number": 2}, end())).text == "hi"
