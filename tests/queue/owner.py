"""A process that owns an embedded server, for tests that kill it. Usage: python owner.py STATE (or "-" for none)."""

import sys
from pathlib import Path

import trio

from emp_trio.queue.embedded import open_embedded_server


async def main(state: str) -> None:
    async with open_embedded_server(None if state == "-" else Path(state)) as server:
        print(server.pid, server.tcp_url, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
