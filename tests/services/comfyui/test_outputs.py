"""Outputs of a prompt: every file whatever its key, texts, and the rest (ComfyUI reference 5)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.services.comfyui.outputs import Outputs, read_outputs
from tests.services.comfyui.recordings import NAMES, histories


def file(name: str, type: str = "output", subfolder: str = "", **more: Any) -> dict[str, Any]:
    return {"filename": name, "subfolder": subfolder, "type": type, **more}


def names(outputs: Any, **options: Any) -> list[str]:
    return [found.filename for found in read_outputs(outputs, **options).files]


PATHS = ["b.png", "c.mp4", "d.glb"]


@pytest.mark.parametrize(
    ("shown", "found"),
    [
        ({"images": [file("a.png"), file("b.png")]}, ["a.png", "b.png"]),
        ({"images": [file("film.mp4")], "animated": [True]}, ["film.mp4"]),
        ({"audio": [file("a.flac")]}, ["a.flac"]),
        ({"latents": [file("l.latent")]}, ["l.latent"]),
        ({"3d": [file("m.glb")]}, ["m.glb"]),
        ({"gifs": [file("v.mp4", format="video/h264-mp4", frame_rate=8)]}, ["v.mp4"]),
        ({"no_such_key_before": [file("x.bin")]}, ["x.bin"]),
        ({"file": file("single.bin")}, ["single.bin"]),
        ({"images": [{"filename": "bare.png"}]}, ["bare.png"]),
        ({"images": [file("mine.png", "input")]}, []),
        ({"images": [{"filename": ""}, {"filename": 3}, "x", None]}, []),
        ({"files": [file("a.png"), "b.png"]}, ["a.png"]),
        ({"files": ["b.png", "sub\\c.mp4", "/srv/x/d.glb", "e", "https://host/f.png", "a\n.png", ".png"]}, PATHS),
        ({"images": [[[[[[[file("too_deep.png")]]]]]]]}, []),
    ],
)
def test_files_are_found_under_any_key(shown: dict[str, Any], found: list[str]) -> None:
    """5: only looking at images loses video, audio and what node packs name as they like."""
    assert names({"9": shown}) == found


def test_previews_are_results_only_where_there_is_nothing_else() -> None:
    both = {"1": {"images": [file("p.png", "temp")]}, "2": {"images": [file("o.png")]}}
    assert names(both) == ["o.png"]
    assert names(both, include_temp=True) == ["p.png", "o.png"]
    assert names({"1": both["1"]}) == ["p.png"]


def test_texts_and_the_rest_are_kept_apart() -> None:
    outputs = {"3": {"text": ["one", "two"]}, "5": {"result": ["path", {"camera": 1}], "animated": [False]}}
    assert read_outputs(outputs) == Outputs(
        texts=("one", "two"), other={"5": {"result": ["path", {"camera": 1}], "animated": [False]}}
    )


def test_the_order_is_that_of_the_nodes_and_a_file_comes_once() -> None:
    outputs = {
        "10": {"images": [file("c.png"), file("a.png")]},
        "9": {"images": [file("a.png")], "gifs": [file("a.png")]},
    }
    assert names(outputs) == ["a.png", "c.png"]


def test_nothing_at_all_is_no_error() -> None:
    for nothing in ({}, None, [], {"1": None}, {"1": {}}):
        assert read_outputs(nothing) == Outputs()


def test_a_subfolder_goes_back_as_it_came() -> None:
    (found,) = read_outputs({"1": {"images": [file("a.png", subfolder="x\\y")]}}).files
    assert found.address == {"filename": "a.png", "subfolder": "x\\y", "type": "output"}


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_output_is_accounted_for(name: str) -> None:
    for _, entry in histories(name):
        found = read_outputs(entry["outputs"], include_temp=True)
        listed = [item for shown in entry["outputs"].values() for items in shown.values() for item in items]
        assert len(found.files) == sum(isinstance(item, dict) for item in listed)
        assert list(found.texts) == [item for item in listed if isinstance(item, str)]


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["filename", "type", "1"]), inner),
    max_leaves=10,
)


@given(json)
def test_nothing_makes_it_raise(outputs: Any) -> None:
    read_outputs(outputs)
