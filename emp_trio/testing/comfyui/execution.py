"""Execute a prompt in the fake ComfyUI: messages in recorded order, and the history entry.

Source: ComfyUI reference 4.1, 4.6, 4.8.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any, Final

import msgspec
import trio

from emp_trio.testing.comfyui.behavior import Item
from emp_trio.testing.comfyui.disk import ROOT, content
from emp_trio.testing.comfyui.nodes import Act, act_of
from emp_trio.testing.comfyui.state import ServerState
from emp_trio.testing.comfyui.validation import is_link

_JPEG: Final = bytes.fromhex("ffd8ffe000104a46494600") + bytes(200)


class _End(Exception):
    def __init__(self, type: str, **data: Any) -> None:
        self.type = type
        self.data = data


class Execution:
    """The run of one prompt."""

    def __init__(self, server: ServerState, item: Item) -> None:
        self._server = server
        self._id = item.prompt_id
        self._item = item
        self._sid: str | None = item.extra_data.get("client_id")
        self._messages: list[list[Any]] = []
        self._outputs: dict[str, Any] = {}
        self._states: dict[str, dict[str, Any]] = {}

    async def run(self) -> dict[str, Any]:
        """Run it to its end.

        Returns:
            its history entry. A node without inputs, or a link to nowhere that validation does not look at, ends the
            worker thread for good: it never returns (4.6).
        """
        server = self._server
        server.executions[self._id] += 1
        self._record("execution_start")
        if server.behavior.dead_thread or any("inputs" not in node for node in self._item.graph.values()):
            await trio.sleep_forever()
        order = self._order()
        if any(key not in self._item.graph for key in order):
            await trio.sleep_forever()
        cached = [key for key in self._item.graph if key in order and self._signature(key) in server.cache]
        self._record("execution_cached", nodes=cached)
        try:
            for key in order:
                if key not in cached:
                    await self._run_node(key)
                elif key in self._item.outputs:
                    self._executed(key, server.cache[self._signature(key)])
                    self._tell_state(key, 1, 1, "finished")
        except _End as end:
            self._record(end.type, **end.data)
        else:
            self._record("execution_success")
        kept = {} if not server.behavior.keep_cache else dict(server.cache)
        done = {self._signature(key) for key in order if self._states.get(key, {}).get("state") == "finished"}
        done |= {self._signature(key) for key in cached}
        server.cache = kept | {name: shown for name, shown in server.cache.items() if name in done}
        succeeded = self._messages[-1][0] == "execution_success"
        return {
            "prompt": self._item.wire,
            "outputs": self._outputs,
            "status": {
                "status_str": "success" if succeeded else "error",
                "completed": succeeded,
                "messages": self._messages,
            },
            "meta": {
                key: {"node_id": key, "display_node": key, "parent_node": None, "real_node_id": key}
                for key in self._outputs
            },
        }

    async def _run_node(self, key: str) -> None:
        server, node = self._server, self._item.graph[key]
        server.node = key
        place = {"node_id": key, "node_type": node["class_type"], "executed": list(self._states)}
        if server.interrupted:
            raise _End("execution_interrupted", **place)
        act = act_of(node["class_type"], node["inputs"], seconds=server.behavior.seconds)
        self._tell_state(key, 0.0, 1.0, "running")
        self._tell("executing", node=key, display_node=key)
        if act.says and self._sid is not None:
            name = key.encode()
            server.say(self._sid, b"\0\0\0\x03" + len(name).to_bytes(4, "big") + name + act.says.encode())
        for step in range(1, act.steps + 1):
            await trio.sleep(act.seconds / act.steps)
            if server.interrupted:
                raise _End("execution_interrupted", **place)
            self._tell_state(key, step, act.steps, "running", everybody=True)
            self._tell("progress", value=step, max=act.steps, node=key, everybody=True)
            if act.previews:
                self._preview(key)
        if not act.steps:
            await trio.sleep(act.seconds)
        if act.raises is not None:
            kind, message = act.raises
            raise _End(
                "execution_error",
                **place,
                exception_message=message,
                exception_type=kind,
                traceback=['  File "execution.py", line 510, in execute\n'],
                current_inputs={name: [str(value)] for name, value in node["inputs"].items()},
                current_outputs=list(self._outputs),
            )
        shown = self._save(key, act)
        server.cache[self._signature(key)] = shown
        self._executed(key, shown)
        self._tell_state(key, 1.0, 1.0, "finished")

    def _save(self, key: str, act: Act) -> dict[str, Any] | None:
        """The outputs of a node, with its files on the disk."""
        if not act.files and not act.shows:
            return None
        shown: dict[str, Any] = {name: list(items) for name, items in act.shows.items()}
        inputs = self._item.graph[key]["inputs"]
        for name, extension, folder in act.files:
            seed = int(self._signature(key, files_too=False)[:12], 16)
            prefix = inputs.get("filename_prefix", "ComfyUI") if folder == "output" else f"ComfyUI_temp_{seed % 26:05}"
            if act.bare and "/" in prefix:
                shown.setdefault(name, [])  # its own error is printed, and the prompt goes on (real servers 1)
                continue
            if act.bare and inputs.get("output_path"):
                prefix = f"{inputs['output_path']}/{prefix}"
            made = self._server.disk.save(folder, prefix, extension, content(extension, seed))
            shown.setdefault(name, []).append(made)
            if act.bare and self._server.behavior.listed is not None:
                text = json.dumps(self._server.behavior.listed)
                return dict(json.loads(text.replace("{name}", made["filename"]).replace("{folder}", f"{ROOT}/output")))
        return shown

    def _executed(self, key: str, shown: dict[str, Any] | None) -> None:
        if shown is not None:
            self._outputs[key] = shown
            self._tell("executed", node=key, display_node=key, output=shown)

    def _tell_state(self, key: str, value: float, most: float, state: str, *, everybody: bool = False) -> None:
        about = {"node_id": key, "prompt_id": self._id, "display_node_id": key}
        self._states[key] = {
            "value": value,
            "max": most,
            "state": state,
            **about,
            "parent_node_id": None,
            "real_node_id": key,
        }
        self._tell("progress_state", nodes=dict(self._states), everybody=everybody)

    def _preview(self, key: str) -> None:
        if self._server.flags.get(self._sid or "", {}).get("supports_preview_metadata"):
            about = msgspec.json.encode({"node_id": key, "prompt_id": self._id, "image_type": "image/jpeg"})
            self._server.say(self._sid, b"\0\0\0\x04" + len(about).to_bytes(4, "big") + about + _JPEG)
        else:
            self._server.say(self._sid, b"\0\0\0\x01\0\0\0\x01" + _JPEG)

    def _record(self, type: str, **data: Any) -> None:
        whole = {**data, "prompt_id": self._id, "timestamp": int(time.time() * 1000)}
        self._messages.append([type, whole])
        if self._sid is not None or type == "execution_interrupted":
            self._server.say(self._sid, {"type": type, "data": whole})

    def _tell(self, type: str, *, everybody: bool = False, **data: Any) -> None:
        """A message to the prompt's client; without one, only some go out, and to everybody (4.9)."""
        if self._sid is not None or everybody:
            self._server.say(self._sid, {"type": type, "data": {**data, "prompt_id": self._id}})

    def _order(self) -> list[str]:
        """The nodes that the outputs need, each after what it needs itself."""
        order: dict[str, None] = {}

        def visit(key: str) -> None:
            for value in self._item.graph[key]["inputs"].values() if key in self._item.graph else ():
                if is_link(value):
                    visit(value[0])
            order.setdefault(key)

        for output in self._item.outputs:
            visit(output)
        return list(order)

    def _signature(self, key: str, *, files_too: bool = True) -> str:
        """What makes a node's result the same; without the file names, what makes its image the same."""
        node = self._item.graph[key]
        parts: list[Any] = [node["class_type"]]
        for name, value in sorted(node["inputs"].items()):
            if name == "filename_prefix" and not files_too:
                continue
            parts += [name, self._signature(value[0], files_too=files_too) if is_link(value) else repr(value)]
        if node["class_type"] == "LoadImage":
            parts.append(hashlib.sha256(self._server.disk.find(node["inputs"]["image"]) or b"").hexdigest())
        return hashlib.sha256(repr(parts).encode()).hexdigest()
