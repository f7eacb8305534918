"""Nodes that save: whose prefix is a path, and which of them have saved nothing."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.services.comfyui.classes import read_class
from emp_trio.services.comfyui.graph import made_unique
from emp_trio.services.comfyui.savers import saves, silent_nodes, takes_path
from emp_trio.testing.attempt import run_job
from emp_trio.testing.comfyui import FakeComfyUI
from tests.services.comfyui.support import ID, bodies, image, open_comfyui, runs
from tests.services.support import job


def info(inputs: dict[str, Any], *, output_node: bool = False) -> dict[str, Any]:
    """What ``/object_info`` says of a class."""
    return {"input": {"required": inputs}, "output_node": output_node}


PATHS = {"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "ComfyUI"}]}


@pytest.mark.parametrize(
    ("name", "module", "inputs", "present", "path"),
    [
        ("SaveImage", "nodes", PATHS, {}, True),
        ("SaveImage", "", PATHS, {}, True),  # an older server
        ("SaveImage", "custom_nodes.mine", PATHS, {}, False),  # it only has the name
        ("SaveVideo", "comfy_extras.nodes_video", PATHS, {}, True),
        ("SaveTomorrow", "comfy_extras.nodes_new", PATHS, {}, True),
        ("SaveTomorrow", "", PATHS, {}, False),
        ("LossGraphNode", "comfy_extras.nodes_train", PATHS, {}, False),
        ("SaveImageDataSetToFolder", "comfy_extras.nodes_dataset", PATHS | {"folder_name": ["STRING"]}, {}, False),
        ("VHS_VideoCombine", "custom_nodes.comfyui-videohelpersuite", PATHS, {}, True),
        ("Pack Save", "custom_nodes.pack", PATHS, {}, False),
        ("Pack Save", "custom_nodes.pack", PATHS | {"filename_prefix": ["STRING", {"default": "a/b"}]}, {}, True),
        *(
            ("Pack Save", "custom_nodes.pack", PATHS | {place: ["STRING"], "filename_prefix": slash}, {}, False)
            for place in ("output_path", "path", "folder", "output_dir", "directory", "subfolder", "save_directory")
            for slash in [["STRING", {"default": "a/b"}]]
        ),
        ("SaveImage", "nodes", PATHS, {"output_path": "/mnt/x"}, False),
    ],
)
def test_a_prefix_is_changed_only_where_it_is_known_to_be_a_path(
    name: str, module: str, inputs: dict[str, Any], present: dict[str, Any], path: bool
) -> None:
    """Elsewhere a slash in it makes some classes write nothing, without an error (real servers 1)."""
    answer = info(inputs, output_node=True) | ({"python_module": module} if module else {})
    assert takes_path({"class_type": name, "inputs": present}, read_class(name, {name: answer})) is path


@pytest.mark.parametrize(("name", "path"), [("SaveImage", True), ("VHS_VideoCombine", True), ("Image Save", False)])
def test_where_the_server_says_nothing_the_name_decides(name: str, path: bool) -> None:
    assert takes_path({"class_type": name, "inputs": {}}, None) is path
    made = made_unique({"1": {"class_type": name, "inputs": {"filename_prefix": "p"}}}, "id/1")
    assert made["1"]["inputs"]["filename_prefix"] == ("id/1/p" if path else "p")


@pytest.mark.parametrize(
    ("shown", "silent"),
    [
        (None, True),
        ({}, True),
        ({"images": []}, True),
        ({"images": [], "animated": [True]}, True),
        ({"images": None}, True),
        ({"images": "nothing that is known"}, True),
        ({"images": [{"filename": "a.png"}]}, False),
        ({"images": [], "files": ["/srv/comfyui/output/mine/a.png"]}, False),
        ({"images": ["a.png"]}, False),
        ({"images": [[{"filename": "a.png", "type": "output"}]]}, False),
        ({"a": [{"kind": "x", "file": {"filename": "a.png"}}]}, False),
        ({"images": [{"name": "a.png", "type": "output"}]}, False),
        ({"images": [{"name": "a.png"}]}, True),
        ({"images": [{"filename": "a.png", "type": "input"}]}, True),
        ({"images": [{"source": "websocket", "type": "output"}]}, True),
        ({"text": ["words"]}, True),
        ({"text": ["a.png"]}, True),
        ({"text": [""]}, True),
        ({"a_new_kind": [0]}, True),
        ({"a_new_kind": {"url": "s3://x"}}, False),
        ({"urls": ["https://example.org/x"]}, False),
        ({"images": ["data:image/png;base64,AAAA"]}, True),
        ([], True),
    ],
)
def test_a_node_that_has_listed_no_file_is_silent(shown: Any, silent: bool) -> None:
    found = silent_nodes(image(), {"2": shown}, ["2"])
    assert found == ({"2": "SaveImage"} if silent else {})
    assert silent_nodes(image(), {"2": shown}, []) == {}  # it was not to be run


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        ("Image Save", PATHS, True),
        ("SaveOnline", {"images": ["IMAGE"]}, True),
        ("Video Out", {"clip": ["VIDEO"], "filename_prefix": ["STRING"]}, True),
        ("Any Out", {"value": ["*"], "filename_prefix": ["STRING"]}, True),
        ("Save Text File", {"text": ["STRING"], "filename_prefix": ["STRING"]}, False),
        ("CheckpointSave", {"model": ["MODEL"], "filename_prefix": ["STRING"]}, False),
        ("PreviewAny", {"source": ["*"]}, False),
        ("Send", {"images": ["IMAGE"]}, False),
        ("Image Writer", {"images": ["IMAGE"]}, True),
        ("Export Video", {"clip": ["VIDEO"]}, True),
        ("Image Out", {"images": ["IMAGE"], "output_folder": ["STRING"]}, True),
        ("V3Out", {"pic": ["IMAGE,MASK"], "filename_prefix": ["STRING"]}, True),
    ],
)
def test_what_counts_as_a_class_that_saves(name: str, inputs: dict[str, Any], expected: bool) -> None:
    assert saves(name, read_class(name, {name: info(inputs, output_node=True)})) is expected
    assert not saves(name, read_class(name, {name: info(inputs)}))  # it runs for others only


def elsewhere(prefix: str = "out", **inputs: Any) -> dict[str, Any]:
    """A graph that saves with a class of a node pack, which has a folder of its own."""
    given = {"images": ["1", 0], "output_path": "my-folder", "filename_prefix": prefix} | inputs
    return image() | {"2": {"class_type": "Image Save", "inputs": given}}


async def test_a_class_with_a_folder_of_its_own_saves_as_it_does_for_others(connector: Any, fake: FakeComfyUI) -> None:
    """With a prefix of ours it would write nothing, list nothing, and the prompt would end well."""
    result = await run_job(connector, job({"workflow": elsewhere()}))
    assert len(result.output_files) == 1
    assert bodies(fake)[0]["prompt"]["2"]["inputs"]["filename_prefix"] == "out"


@pytest.mark.parametrize("more", [{}, {"3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}])
async def test_a_prompt_that_has_saved_nothing_is_no_success(
    connector: Any, fake: FakeComfyUI, more: dict[str, Any]
) -> None:
    """A preview is not what was to be saved. It is paid for, and would end in the same way again."""
    workflow = elsewhere("a/path", output_path="") | more
    with pytest.raises(ServiceError, match=r"'2' \(Image Save\)") as caught:
        await run_job(connector, job({"workflow": workflow}))
    assert (caught.value.retry, caught.value.maybe_started) == (False, True)
    assert ID not in fake.engine.history  # a later try, of a mended server, is not to find it


async def test_where_something_else_was_saved_the_silent_node_is_named(connector: Any, fake: FakeComfyUI) -> None:
    """12: what is in hand is kept. A branch of the graph may have been switched off."""
    graph = elsewhere("a/path", output_path="")
    workflow = graph | {"3": image()["2"], "4": {"class_type": "RigNothing", "inputs": {}}}
    result = await run_job(connector, job({"workflow": workflow}))
    assert len(result.output_files) == 1
    assert result.metadata["warnings"] == ["no file is listed by node '2' (Image Save)"]
    assert runs(fake) == 1


@pytest.mark.parametrize(
    ("listed", "files"),
    [
        ({"images": [], "files": ["{folder}/mine/{name}"]}, 1),
        ({"images": ["mine/{name}"]}, 1),
        ({"images": [[{"filename": "{name}", "subfolder": "mine", "type": "output"}]]}, 1),
        ({"all": [{"kind": "x", "file": {"filename": "{name}", "subfolder": "mine"}}]}, 1),
        ({"images": [{"name": "{name}", "subfolder": "mine", "type": "OUTPUT"}]}, 1),
        ({"files": ["mine/elsewhere.png"]}, 0),
        ({"text": ["saved 1 image"]}, 0),
        ({"animated": [True], "count": [1]}, 0),
        ({"images": [{"filename": "{name}", "subfolder": "mine", "type": "input"}]}, 0),
        ({"images": [{"source": "websocket", "type": "output"}]}, 0),
    ],
)
async def test_whatever_a_saver_lists_its_file_comes_or_the_job_fails_for_good(
    connector: Any, fake: FakeComfyUI, listed: dict[str, Any], files: int
) -> None:
    """Node packs list what they have saved in forms of their own, or do not. None of it is a success without a file."""
    fake.behavior.listed = listed
    run = functools.partial(run_job, connector, job({"workflow": elsewhere(output_path="mine")}))
    if files:
        assert len((await run()).output_files) == files
    else:
        with pytest.raises(ServiceError, match="saved nothing") as caught:
            await run()
        assert (caught.value.retry, caught.value.maybe_started) == (False, True)
    assert runs(fake) == 1


async def test_a_prompt_that_only_says_something_is_a_success(connector: Any) -> None:
    say = {"1": {"class_type": "RigSay", "inputs": {"text": "words"}}}
    assert (await run_job(connector, job({"workflow": say}))).data["text"] == "words"


async def test_a_finished_prompt_is_not_lost_by_a_question_about_its_classes(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """What the server does not say any more costs no result."""
    async with open_comfyui(fake, connector_context) as connector:
        workflow = image() | {"4": {"class_type": "RigNothing", "inputs": {}}}
        await run_job(connector, job({"workflow": workflow}))
        connector.server._classes.clear()
        fake.inject("GET /object_info", 500, times=10)
        assert len((await run_job(connector, job({"workflow": workflow}, attempt=2, checkpoint={"x": 1}))).output_files)
