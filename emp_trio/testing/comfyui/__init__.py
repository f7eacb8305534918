"""A fake ComfyUI on a loopback socket, in the shapes of recordings of a real one, for tests and ``simulate``."""

from __future__ import annotations

from emp_trio.testing.comfyui.behavior import Behavior
from emp_trio.testing.comfyui.fake import FakeComfyUI, open_fake_comfyui

__all__ = ["Behavior", "FakeComfyUI", "open_fake_comfyui"]
