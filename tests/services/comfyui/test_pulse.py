"""Whether a server with work in hand still does something, by what was seen and when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.services.comfyui.pulse import Memory, Pulse, Vitals, read_memory, sign_of_life

GB = 2**30


def memory(own: int = 0, free: int = 10 * GB) -> Memory:
    """Memory of a server that has taken so much, on a host with so much free."""
    return Memory(own=(own,), shared=((free, 24 * GB),))


def vitals(*running: str, waiting: int = 0, newest: str = "n", own: int = 0, free: int = 10 * GB) -> Vitals:
    """A look at a server."""
    return Vitals(running=frozenset(running), waiting=waiting, newest=newest, memory=memory(own, free))


@pytest.mark.parametrize(
    ("before", "after", "sign"),
    [
        (vitals("a", waiting=1), vitals("a", waiting=1), ""),
        (vitals("a", waiting=1), vitals("a", waiting=9), ""),  # clients do that
        (vitals("a", waiting=1), vitals("a"), ""),
        (vitals(waiting=1), vitals(waiting=2), ""),
        (vitals("a"), vitals("b"), "queue"),
        (vitals("a"), vitals(), "queue"),
        (vitals(waiting=1), vitals("a"), "queue"),
        (vitals("a", "b"), vitals("b"), "queue"),
        (vitals("a", newest="x"), vitals("a", newest="y"), "history"),
        (vitals("a", newest=""), vitals("a", newest="y"), ""),  # it did not say before
        (vitals("a", newest="x"), vitals("a", newest=""), ""),  # somebody has deleted it
        (vitals("a"), vitals("a", own=1), "memory"),
        (vitals("a"), vitals("a", free=9 * GB), "memory"),
        (vitals("a"), vitals("a", free=11 * GB), "memory"),
        (vitals("a"), vitals("a", free=10 * GB - 600_000_000), ""),  # others are at work on the host, too
        (vitals("a"), Vitals(running=frozenset("a"), newest="n"), ""),
    ],
)
def test_what_counts_as_a_sign_of_life(before: Vitals, after: Vitals, sign: str) -> None:
    """4.6: a dead thread is told from a long computation by what changes."""
    assert sign_of_life(before, after) == sign


STUCK = vitals("a", waiting=2)


@pytest.mark.parametrize(
    ("seen", "suspect"),
    [
        ([(0, STUCK), (119, STUCK)], False),
        ([(0, STUCK), (120, STUCK)], True),
        ([(120, STUCK)], True),  # since the watch began
        ([(0, STUCK), (60, vitals("b", waiting=1)), (120, vitals("b", waiting=1))], False),
        ([(0, STUCK), (60, vitals("b", waiting=1)), (180, vitals("b", waiting=1))], True),
        ([(0, STUCK), (120, STUCK), (130, vitals("b"))], False),  # the first sign clears it
        ([(0, STUCK), (120, STUCK), (130, vitals("a", own=5))], False),
        ([(0, STUCK), (120, STUCK), (130, vitals("a", newest="m"))], False),
        ([(0, STUCK), (120, STUCK), (130, vitals())], False),
        ([(0, vitals(waiting=1)), (120, vitals(waiting=1)), (130, vitals())], True),  # taken back, and not done
        ([(0, vitals()), (500, vitals()), (510, STUCK), (600, STUCK)], False),  # it was idle
        ([(0, vitals()), (500, vitals()), (510, STUCK), (640, STUCK)], True),
        ([(0, STUCK), (40, vitals("a", free=10 * GB - GB // 4)), (119, vitals("a", free=10 * GB - GB // 2))], False),
        (
            [(0, STUCK), *((at, vitals("a", free=10 * GB - at * GB // 50)) for at in range(10, 300, 10))],
            False,  # a model is loaded slowly
        ),
        ([(0, STUCK), (60, "message"), (120, STUCK), (179, STUCK)], False),
        ([(0, STUCK), (60, "message"), (180, STUCK)], True),
        ([(0, STUCK), (120, STUCK), (121, "message")], False),
    ],
)
def test_when_a_server_is_suspect(seen: list[tuple[float, Any]], suspect: bool) -> None:
    pulse = Pulse(120.0, now=0.0)
    for at, what in seen:
        if what == "message":
            pulse.heard(at)
        else:
            pulse.seen(what, at)
    assert bool(pulse.doubt) is suspect


def test_the_reason_says_what_is_known() -> None:
    pulse = Pulse(120.0, now=0.0)
    pulse.seen(vitals("a-prompt", waiting=3), 130.0)
    assert "a-prompt" in pulse.doubt
    assert "3 wait" in pulse.doubt
    assert "130 s" in pulse.doubt


LOOKS = st.builds(
    vitals,
    st.sampled_from(["a", "b"]),
    waiting=st.integers(0, 3),
    newest=st.sampled_from(["", "x", "y"]),
    own=st.integers(0, 2),
)


@given(st.lists(st.tuples(st.floats(0, 119), LOOKS), max_size=20))
def test_nobody_is_suspect_within_the_patience(steps: list[tuple[float, Vitals]]) -> None:
    """Whatever is seen: between the last sign and a doubt there is the whole time."""
    pulse, now, since, before = Pulse(120.0, now=0.0), 0.0, 0.0, None
    for pause, look in steps:
        now += pause
        if before is not None and before.running != look.running:
            since = now
        pulse.seen(look, now)
        assert not (pulse.doubt and now - since < 120)
        before = look


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (
            {
                "system": {"ram_total": 100, "ram_free": 40},
                "devices": [
                    {"type": "cuda", "vram_total": 8, "vram_free": 3, "torch_vram_total": 4, "torch_vram_free": 1}
                ],
            },
            Memory(own=(4, 1), shared=((40, 100), (3, 8))),
        ),
        (
            {"system": {"ram_total": 100, "ram_free": 40}, "devices": [{"type": "cpu", "vram_total": 100}]},
            Memory(shared=((40, 100),)),  # a device that is the host
        ),
        ({"system": {"os": "posix"}, "devices": []}, None),
        ({"system": None, "devices": [7, {}]}, None),
        ({"system": {"ram_total": None, "ram_free": "7"}, "devices": None}, None),
        ([], None),
        (None, None),
    ],
)
def test_the_memory_is_read(answer: Any, found: Memory | None) -> None:
    assert read_memory(answer) == found
