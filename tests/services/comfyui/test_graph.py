"""Graphs: found in a payload, checked, and made a job's own."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.services.comfyui.classes import (
    UNTOLD,
    FileInput,
    check_classes,
    file_inputs,
    read_class,
    read_replacements,
    with_titles,
)
from emp_trio.services.comfyui.graph import made_unique, prompt_id_of, read_workflow, with_inputs
from tests.services.comfyui.recordings import NAMES, recording

GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
}


def saving(source: str) -> dict[str, Any]:
    """A graph that saves what comes of another node."""
    return {"2": {"class_type": "SaveImage", "inputs": {"images": [source, 0], "filename_prefix": "out"}}}


EDITOR = {"nodes": [{"id": 1, "type": "EmptyImage"}], "links": [], "version": 0.4}


@pytest.mark.parametrize(
    "payload",
    [
        {"workflow": GRAPH},
        {"prompt": GRAPH},
        {"workflow": {"prompt": GRAPH, "client_id": "x"}},
        {"prompt": {"workflow": GRAPH}},
        GRAPH,
        GRAPH | {"ctx": {"retry_count": 1}},
    ],
)
def test_the_graph_is_found_wherever_people_put_it(payload: dict[str, Any]) -> None:
    assert read_workflow(payload).graph == GRAPH


def test_metadata_for_the_images_goes_along() -> None:
    """11, outputs: the workflow that images are to carry must not be lost on the way."""
    info = {"workflow": EDITOR}
    for payload in (
        {"workflow": GRAPH, "extra_data": {"extra_pnginfo": info}},
        {"workflow": GRAPH, "extra_pnginfo": info},
        {"workflow": {"prompt": GRAPH, "extra_data": {"extra_pnginfo": info}}},
    ):
        assert read_workflow(payload).extra_data == {"extra_pnginfo": info}


@pytest.mark.parametrize(
    ("workflow", "said"),
    [
        (EDITOR, "Export \\(API\\)"),
        ({}, "no graph"),
        ([], "list where a graph"),
        ("text", "str where a graph"),
        ({"1": "text"}, "'1' is not an object with a class_type"),
        ({"1": {"inputs": {}}}, "'1' is not an object with a class_type"),
        ({"1": {"class_type": 3, "inputs": {}}}, "'1' is not an object with a class_type"),
        ({"1": {"class_type": "SaveImage"}}, "'1' \\(SaveImage\\) has no inputs object"),
        ({"1": {"class_type": "SaveImage", "inputs": []}}, "has no inputs object"),
    ],
)
def test_what_could_end_the_worker_thread_is_not_sent(workflow: Any, said: str) -> None:
    """2.1, 4.6: no node without inputs; and the forms that people mix up are named."""
    with pytest.raises(InvalidJob, match=said) as caught:
        read_workflow({"workflow": workflow})
    assert not caught.value.retry


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidJob) as caught:
        read_workflow({"workflow": {str(number): {} for number in range(30)}})
    assert "'0'" in caught.value.message
    assert "'9'" in caught.value.message
    assert "and 20 more" in caught.value.message


@pytest.mark.parametrize("name", NAMES)
def test_graphs_that_the_server_took_are_taken(name: str) -> None:
    pending = None
    for record in recording(name):
        if record.get("method") == "POST" and record.get("path") == "/prompt":
            if record["dir"] == "out":
                pending = record["body"]
            elif record["status"] == 200 and not record["body"]["node_errors"]:
                assert read_workflow(pending or {}).graph == (pending or {})["prompt"]


def test_the_prompt_id_is_a_canonical_uuid_and_the_same_in_every_attempt() -> None:
    """1: later servers refuse ids of any other form."""
    assert prompt_id_of("job-1") == prompt_id_of("job-1") != prompt_id_of("job-2")
    assert str(uuid.UUID(prompt_id_of("any/id at all"))) == prompt_id_of("any/id at all")


@pytest.mark.parametrize(
    ("prefix", "made"),
    [
        ("out", "id/1/out"),
        ("a/b", "id/1/a/b"),
        ("a\\b", "id/1/a/b"),
        ("/etc/x", "id/1/etc/x"),
        ("../../x", "id/1/x"),
        ("", "id/1"),
        ("%date%/x", "id/1/%date%/x"),
    ],
)
def test_files_of_a_job_are_in_a_folder_of_its_own(prefix: str, made: str) -> None:
    """4.8: a name that is counted up from what lies in the folder comes back with another job's image."""
    graph = {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": prefix}}}
    assert made_unique(graph, "id/1")["1"]["inputs"]["filename_prefix"] == made
    assert graph["1"]["inputs"]["filename_prefix"] == prefix


@given(st.text())
def test_no_prefix_leads_out_of_the_folder(prefix: str) -> None:
    graph = {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": prefix}}}
    made = made_unique(graph, "id/1")["1"]["inputs"]["filename_prefix"]
    assert made.split("/")[:2] == ["id", "1"]
    assert not {"..", "."} & set(made.split("/"))


def test_images_are_saved_and_not_sent_over_the_socket() -> None:
    """3.3: SaveImageWebsocket leaves nothing in the history."""
    graph = {"7": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}}
    assert made_unique(graph, "id")["7"] == {
        "class_type": "SaveImage",
        "inputs": {"images": ["1", 0], "filename_prefix": "id/ComfyUI"},
    }


def info(inputs: dict[str, Any], *, output_node: bool = False) -> dict[str, Any]:
    return {"input": {"required": inputs}, "output_node": output_node}


CLASSES = {
    name: read_class(name, {name: answer})
    for name, answer in {
        "EmptyImage": info({"width": ["INT", {"min": 1}]}),
        "SaveImage": info({"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}, output_node=True),
        "Loader": info({"name": [["a.ckpt", "b.ckpt"]], "kind": ["COMBO", {"options": ["x", 2]}]}),
        "LoadImage": info({"image": [["there.png"], {"image_upload": True}]}),
        "Clip": info({"clip": ["COMBO", {"video_upload": True, "options": []}]}),
    }.items()
}


def test_the_recorded_class_is_read() -> None:
    (answer,) = (
        r["body"] for r in recording("01-probes.jsonl") if r.get("path", "").endswith("EmptyImage") and r.get("status")
    )
    found = read_class("EmptyImage", answer)
    assert found is not None
    assert set(found.inputs) == {"width", "height", "batch_size", "color"}
    assert not found.output_node
    assert read_class("NoSuchNode", {}) is None


def test_a_graph_that_the_server_can_run_passes() -> None:
    loader = {"class_type": "Loader", "inputs": {"name": "b.ckpt", "kind": "for the server to say"}}
    image = {"class_type": "LoadImage", "inputs": {"image": "just-uploaded.png"}}
    check_classes(GRAPH | {"3": loader, "4": image}, CLASSES)


@pytest.mark.parametrize(
    ("graph", "reason", "said"),
    [
        (GRAPH | {"3": {"class_type": "Gone", "inputs": {}}}, "component_error", "'Gone'"),
        (
            GRAPH | saving("3") | {"3": {"class_type": "Loader", "inputs": {"name": "c.ckpt"}}},
            "model_not_found",
            "'c.ckpt' for 'name'",
        ),
    ],
)
def test_what_this_server_lacks_may_be_on_another(graph: dict[str, Any], reason: str, said: str) -> None:
    """2.1, 11: missing models and node packs are found before a job fails on them."""
    classes = {node["class_type"]: CLASSES.get(node["class_type"]) for node in graph.values()}
    with pytest.raises(ServiceError, match=said) as caught:
        check_classes(graph, classes)
    assert (caught.value.type, caught.value.reason, caught.value.retry) == ("validation_error", reason, True)


@pytest.mark.parametrize(
    "unneeded",
    [
        {"class_type": "EmptyImage", "inputs": {"width": ["99", 0]}},
        {"class_type": "Loader", "inputs": {"name": "c.ckpt"}},
        {"class_type": "EmptyImage", "inputs": {"width": ["3", 0]}},
    ],
)
def test_what_no_output_needs_is_not_looked_at(unneeded: dict[str, Any]) -> None:
    """The server takes it, too (real servers 1)."""
    graph = GRAPH | {"3": unneeded}
    assert check_classes(graph, CLASSES) == graph


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", ["images", "undeclared"])
def test_a_link_to_nowhere_that_an_output_needs_is_not_sent(known: bool, name: str) -> None:
    """4.6: in an input that no class declares it could end the worker thread. Where the classes are not known, any node
    may be an output."""
    graph = GRAPH | {"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], name: ["99", 0]}}}
    with pytest.raises(InvalidJob, match="from node '99', which is missing") as caught:
        check_classes(graph, CLASSES if known else {})
    assert not caught.value.retry


@pytest.mark.parametrize(
    ("bad", "left"),
    [
        ({"8": saving("9")["2"]}, {"1", "2"}),  # a link to nowhere
        ({"8": saving("9")["2"], "9": {"class_type": "Gone", "inputs": {}}}, {"1", "2"}),
        ({"8": saving("9")["2"], "9": {"class_type": "Loader", "inputs": {"name": "c.ckpt"}}}, {"1", "2", "8", "9"}),
        ({"9": {"class_type": "Gone", "inputs": {"image": ["1", 0]}}}, {"1", "2"}),
        ({"8": saving("9")["2"], "9": {"class_type": "Gone", "inputs": {"image": ["1", 0]}}}, {"1", "2"}),
        ({"9": {"class_type": "EmptyImage", "inputs": {}}}, {"1", "2", "9"}),
    ],
)
def test_a_part_of_a_graph_is_what_the_server_can_run(bad: dict[str, Any], left: set[str]) -> None:
    """What it refuses as a whole, or what would harm it, is left out; of a missing model it says so itself."""
    graph = GRAPH | bad
    classes = {node["class_type"]: CLASSES.get(node["class_type"]) for node in graph.values()}
    assert check_classes(graph, classes, partial=True).keys() == left
    if left == {"1", "2"} or "8" in left:
        with pytest.raises((InvalidJob, ServiceError)):
            check_classes(graph, classes)


def test_no_part_of_a_graph_is_no_graph() -> None:
    with pytest.raises(ServiceError, match="'Gone'"):
        check_classes({"1": {"class_type": "Gone", "inputs": {}}}, {"Gone": None}, partial=True)


REPLACED = {
    "Old": [{"new_node_id": "New", "old_node_id": "Old", "input_mapping": None}, {"new_node_id": "Newer"}],
    "Odd": {"new_node_id": "New"},
    "Bad": [],
    "Worse": [{"new_node_id": None}],
}


def test_replacements_are_read() -> None:
    assert read_replacements(REPLACED) == {"Old": "New", "Odd": "New"}
    assert read_replacements([]) == read_replacements(None) == {}


def test_a_node_that_is_replaced_has_a_title() -> None:
    """A server that copies it would fail without (real servers 1)."""
    classes = {"Old": UNTOLD, "New": CLASSES["SaveImage"]}
    mine = {"class_type": "Old", "inputs": {}, "_meta": {"title": "mine"}}
    graph = {"1": {"class_type": "Old", "inputs": {}}, "2": {"class_type": "New", "inputs": {}}, "3": mine}
    assert with_titles(graph, classes) == graph | {"1": graph["1"] | {"_meta": {"title": "Old"}}}
    assert "_meta" not in graph["1"]


def test_a_graph_without_an_output_is_the_jobs_fault() -> None:
    with pytest.raises(InvalidJob, match="no output node"):
        check_classes({"1": GRAPH["1"]}, {"EmptyImage": CLASSES["EmptyImage"]})


URL = "https://files.example/cat.png?sig=1"
LONG = "QUJD" * 100


@pytest.mark.parametrize(
    ("node", "found"),
    [
        ({"class_type": "LoadImage", "inputs": {"image": URL}}, URL),
        ({"class_type": "LoadImage", "inputs": {"image": "data:image/png;base64,QUJD"}}, "data:image/png;base64,QUJD"),
        ({"class_type": "LoadImage", "inputs": {"image": LONG}}, LONG),
        ({"class_type": "Clip", "inputs": {"clip": URL}}, URL),
        ({"class_type": "LoadImage", "inputs": {"image": "in.png [temp]"}}, None),
        ({"class_type": "LoadImage", "inputs": {"image": ["1", 0]}}, None),
        ({"class_type": "CLIPTextEncode", "inputs": {"text": URL}}, None),
        ({"class_type": "CLIPTextEncode", "inputs": {"text": "a long text " * 100}}, None),
    ],
)
def test_files_in_the_graph_are_found_and_texts_left_alone(node: dict[str, Any], found: str | None) -> None:
    expected = [] if found is None else [FileInput(node="5", input=next(iter(node["inputs"])), source=found)]
    assert file_inputs({"5": node}, CLASSES) == expected
    if node["class_type"] == "LoadImage":
        assert file_inputs({"5": node}, {}) == expected


def test_names_are_patched_into_a_copy() -> None:
    graph = {"5": {"class_type": "LoadImage", "inputs": {"image": URL}}}
    assert with_inputs(graph, {("5", "image"): "id/in (1).png"})["5"]["inputs"] == {"image": "id/in (1).png"}
    assert graph["5"]["inputs"]["image"] == URL
