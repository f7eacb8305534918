"""Stop a prompt on servers with and without the jobs API (ComfyUI reference 6).

Older servers have no single call for it, and no call reports whether it worked.
"""

from __future__ import annotations

from typing import Final, Literal

import trio

from emp_trio.services.comfyui.calls import Calls

Stopped = Literal["never ran", "interrupted", "finished"]

_PAUSES: Final = (0.05, 0.1, 0.2, 0.5)  # seconds between two looks; the last one stays


async def stop_prompt(calls: Calls, prompt_id: str) -> Stopped:
    """Stop a prompt, and come back when it neither waits nor runs any more.

    An interrupt is heard at the next step or node of the prompt, or never; so the caller limits the time. It is sent
    only while this very prompt is seen to run: the next one may be somebody else's.

    Raises:
        ServiceError: the server can't be asked.
        trio.Cancelled: the prompt may still run.
    """
    if not await calls.cancel(prompt_id):
        await calls.delete(prompt_id)
    tried = 0
    while True:
        place = (await calls.queue()).state_of(prompt_id)
        if place == "absent":
            entry = await calls.entry(prompt_id)
            if entry is None:
                return "never ran"
            return "interrupted" if entry.interrupted else "finished"
        if await calls.cancel(prompt_id):
            pass
        elif place == "running":
            await calls.interrupt(prompt_id)
        else:
            await calls.delete(prompt_id)
        await trio.sleep(_PAUSES[min(tried, len(_PAUSES) - 1)])
        tried += 1
