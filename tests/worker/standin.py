"""The fleet's API as its workers meet it: it queues a job, announces it a moment later, then listens on its client's
behalf (tests of real fleets: up to 20 ms pass between the first two)."""

from __future__ import annotations

import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import hiredis

from tests.worker.support import LIMIT, client, submit

EVENTS = ("update_job_progress", "complete_job", "job_failed")


def _packed(*args: str) -> bytes:
    return bytes(hiredis.pack_command(args))


def submitted_by_api(url: str, job_type: str, late: float, payload: Any = None, **fields: Any) -> list[dict[str, Any]]:
    """Submit a job, announce it ``late`` seconds later, and hear as its client what becomes of it, to its end.

    The subscription follows the announcement at once, without waiting for its reply, as in the API's process, which
    listens all the time and then only writes down whose job it is. To be run in a thread.
    """
    where = urlsplit(url)
    with (
        client(url) as db,
        socket.create_connection((where.hostname or "", where.port or 0), timeout=LIMIT) as late_ear,
    ):
        job_id = submit(db, job_type, payload, tell=False, **fields)
        time.sleep(late)
        announcement = {"job_id": job_id, "service_required": job_type, "payload": payload or {}}
        late_ear.sendall(_packed("PUBLISH", "job_submitted", json.dumps(announcement)) + _packed("SUBSCRIBE", *EVENTS))
        reader, heard = hiredis.Reader(encoding="utf-8"), []
        while True:
            data = late_ear.recv(65536)
            assert data, "the server hung up"
            reader.feed(data)
            while (message := reader.gets()) is not False:
                if isinstance(message, list) and message[0] == "message":
                    body = json.loads(message[2])
                    if body["job_id"] == job_id:
                        heard.append(body | {"channel": message[1]})
                        if message[1] != "update_job_progress":
                            return heard


def saw_the_start(heard: list[dict[str, Any]]) -> bool:
    """Whether a client heard that its job was taken and then that it runs, ahead of everything else."""
    return [m.get("progress") for m in heard[:2]] == [0, 1] and heard[1].get("status") == "processing"
