"""What the rest of the fleet sees of a machine: hashes, heartbeats, messages, and nothing of it when it is gone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import trio

from emp_trio.errors import ServiceError
from emp_trio.services.connector import Connector, Health, ServiceFeatures
from emp_trio.testing.proxy import open_proxy
from tests.queue.support import Ear
from tests.worker.support import Play, cancel_as_api, eventually, open_machine, submit, until_status

WORKER = "m1-worker-t-0"
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def on(ear: Ear, channel: str) -> list[dict[str, Any]]:
    return [message for _, message in ear.heard(channel)]


async def test_registration_hash_heartbeat_and_set(valkey: str, db: Any) -> None:
    async with open_machine(valkey, {"t": Play()}, environment={"WORKER_REGION": "eu"}):
        found = db.hgetall(f"worker:{WORKER}")
        assert {"m1-worker-t-0", "m1-worker-t-1"} == db.smembers("workers:active")
        assert 0 < db.ttl(f"worker:{WORKER}:heartbeat") <= 60
        assert ISO.fullmatch(db.get(f"worker:{WORKER}:heartbeat"))
        assert 0 < db.ttl(f"worker:{WORKER}") <= 120
    assert (found["worker_id"], found["machine_id"], found["status"]) == (WORKER, "m1", "idle")
    assert (found["current_job_id"], found["total_jobs_completed"], found["total_jobs_failed"]) == ("", "0", "0")
    assert ISO.fullmatch(found["connected_at"])
    assert ISO.fullmatch(found["last_heartbeat"])
    capabilities = json.loads(found["capabilities"])
    assert (capabilities["worker_id"], capabilities["machine_id"]) == (WORKER, "m1")
    assert capabilities["services"] == capabilities["job_service_required_map"] == ["t"]
    assert capabilities["hardware"]["gpu_memory_gb"] == 24
    assert capabilities["customer_access"] == {"isolation": "loose", "max_concurrent_customers": 10}
    assert capabilities["location"] == {"region": "eu", "compliance_zones": []}
    statuses = json.loads(found["connector_statuses"])
    assert statuses["PlayConnector"]["status"] == "active"
    assert statuses["PlayConnector"]["connector_id"] == "PlayConnector"


async def test_a_beat_restores_what_the_api_overwrote_or_deleted(valkey: str, db: Any) -> None:
    async with open_machine(valkey, {"t": Play()}, beat_every=0.1):
        db.hset(f"worker:{WORKER}", "capabilities", "{}")
        await eventually(lambda: db.hget(f"worker:{WORKER}", "capabilities") != "{}")
        db.delete(f"worker:{WORKER}", f"worker:{WORKER}:heartbeat", "workers:active")
        await eventually(lambda: db.hget(f"worker:{WORKER}", "machine_id") == "m1")
        await eventually(lambda: db.scard("workers:active") == 2 and db.exists(f"worker:{WORKER}:heartbeat"))


async def test_messages_of_coming_and_going(valkey: str, ear: Ear) -> None:
    async with open_machine(valkey, {"t": Play()}, slots=1):
        pass
    heard = ear.heard()
    connected, disconnected = [m for c, m in heard if c == "worker:events"]
    assert (connected["type"], connected["worker_id"], connected["machine_id"]) == ("worker_connected", WORKER, "m1")
    data = connected["worker_data"]
    assert (data["id"], data["status"], data["jobs_completed"], data["jobs_failed"]) == (WORKER, "idle", 0, 0)
    assert data["capabilities"]["services"] == ["t"]
    assert data["capabilities"]["models"] == []
    assert (disconnected["type"], disconnected["worker_id"]) == ("worker_disconnected", WORKER)
    idle, offline = [m for c, m in heard if c == f"worker_status:{WORKER}"]
    assert (idle["status"], idle["capabilities"]["services"], idle["worker_id"]) == ("idle", ["t"], WORKER)
    assert (offline["status"], offline["machine_id"]) == ("offline", "m1")
    told = [m["data"] for c, m in heard if c == f"machine:m1:worker:{WORKER}"]
    assert (told[0]["status"], told[0]["is_connected"], told[0]["capabilities"]) == ("idle", True, ["t"])
    assert (told[-1]["status"], told[-1]["is_connected"]) == ("offline", False)
    shutdown = next(m for c, m in heard if c == "machine:startup:events")
    assert (shutdown["event_type"], shutdown["reason"]) == ("shutdown", "the test is over")
    assert all(isinstance(m["timestamp"], int) for c, m in heard if c != f"worker_status:{WORKER}")


async def test_nothing_of_a_stopped_machine_is_left(valkey: str, db: Any) -> None:
    """Also where the next beat is due while Redis is slow to answer the farewell."""
    play = Play()
    play.finish.set()
    async with (
        open_proxy(int(valkey.rpartition(":")[2])) as proxy,
        open_machine(f"redis://127.0.0.1:{proxy.port}", {"t": play}, slots=30, beat_every=0.02),
    ):
        await until_status(db, submit(db, "t"), "completed")
        proxy.latency = 0.2
    assert [key for key in db.keys("worker*") if not key.startswith("worker:completion")] == []
    assert db.keys("jobs:active:*") == []
    assert db.zcard("emp:leases") == 0


async def test_the_status_of_the_machine_is_what_the_monitor_reads(valkey: str, db: Any, ear: Ear) -> None:
    play, sick = Play(), Play(health=_sick)
    async with open_machine(valkey, {"t": play, "u": sick}, slots=1, beat_every=30.0):
        job_id = submit(db, "t")
        await play.until_begun()
        busy = await eventually(lambda: [m for m in on(ear, "machine:status:m1") if _state(m)["status"] == "busy"])
        play.finish.set()
        await until_status(db, job_id, "completed")
    assert (busy[0]["update_type"], busy[0]["machine_id"]) == ("event_driven", "m1")
    structure, status = busy[0]["structure"], busy[0]["status"]
    assert structure["gpu_count"] == 1
    assert isinstance(structure["capabilities"], list)
    assert structure["workers"][WORKER] == {
        "worker_id": WORKER,
        "pm2_name": WORKER,
        "gpu_id": 0,
        "worker_type": "t",
        "resource_binding": "shared",
        "services": ["t-service"],  # names of worker services, not job types (queue protocol 2.9)
        "connectors": ["PlayConnector"],
    }
    assert status["machine"]["phase"] == "ready"
    assert status["machine"]["uptime_ms"] >= 0
    assert (status["workers"][WORKER]["current_job_id"], status["workers"][WORKER]["is_connected"]) == (job_id, True)
    assert isinstance(status["workers"][WORKER]["last_activity"], int)
    service = status["services"][f"{WORKER}.t-service"]
    assert (service["status"], service["health"], service["worker_id"]) == ("active", "healthy", WORKER)
    assert status["services"]["m1-worker-u-0.u-service"]["health"] == "unhealthy"
    last = on(ear, "machine:status:m1")[-1]
    # of "shutdown" the API tells no monitor
    assert (last["update_type"], last["status"]["machine"]["phase"]) == ("event_driven", "shutdown")
    assert (_state(last)["status"], _state(last)["is_connected"]) == ("offline", False)


async def test_moves_of_slots_are_told_soon_but_seldom(valkey: str, db: Any, ear: Ear) -> None:
    """One status for the many moves of a while, and one for the last of them."""
    play = Play()
    play.finish.set()
    async with open_machine(valkey, {"t": play}, slots=1, beat_every=30.0):
        on(ear, "machine:status:m1")
        began = trio.current_time()
        for _ in range(50):
            await until_status(db, submit(db, "t"), "completed")
        told = on(ear, "machine:status:m1")
        assert len(told) <= (trio.current_time() - began) / 0.25 + 1
        assert {m["update_type"] for m in told} <= {"event_driven"}
        play.finish = trio.Event()
        last = submit(db, "t")
        await eventually(lambda: [m for m in on(ear, "machine:status:m1") if _state(m)["current_job_id"] == last])
        play.finish.set()
        await eventually(lambda: [m for m in on(ear, "machine:status:m1") if _state(m)["status"] == "idle"])


async def test_there_is_a_status_every_beat_also_while_nothing_moves(valkey: str, ear: Ear) -> None:
    async with open_machine(valkey, {"t": Play()}, slots=1, beat_every=0.1):
        await eventually(lambda: [m for m in on(ear, "machine:status:m1") if m["update_type"] == "periodic"])


@pytest.mark.parametrize("unified", [False, True])
async def test_each_message_to_an_aggregator_names_the_build(valkey: str, db: Any, ear: Ear, unified: bool) -> None:
    """It keeps what it heard last."""
    play = Play()
    environment = {"VERSION": "9.8.7", "BUILD_TIMESTAMP": "2026-11-01T00:00:00.000Z"}
    async with open_machine(valkey, {"t": play}, slots=1, unified=unified, environment=environment):
        job_id = submit(db, "t")
        await play.until_begun()
        cancel_as_api(db, job_id)
        await play.until_over()
        await eventually(lambda: db.hget(f"worker:{WORKER}", "status") == "idle")
        play.finish.set()
        await until_status(db, submit(db, "t"), "completed")
    heard = ear.heard()
    data = [m["data"] for c, m in heard if c == f"machine:m1:worker:{WORKER}" and "status" in m["data"]]
    assert [d["status"] for d in data] == ["idle", *["busy", "idle"] * 2, "offline"]
    for one in [*data, *(_state(m) for c, m in heard if c == "machine:status:m1")]:
        assert (one["version"], one["build_timestamp"]) == ("9.8.7", "2026-11-01T00:00:00.000Z")
        assert one["build_info"].startswith("emp-trio ")


async def test_what_the_api_writes_of_a_machine_that_left_expires(valkey: str, db: Any) -> None:
    written = trio.Event()

    async def api(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with db.pubsub() as heard:
            heard.psubscribe("machine:status:*")
            heard.get_message(timeout=5)
            task_status.started()
            while True:
                message = heard.get_message()
                if message and json.loads(message["data"])["status"]["machine"]["phase"] == "shutdown":
                    db.hset(f"worker:{WORKER}", mapping={"status": "offline", "is_connected": "false"})
                    written.set()
                    return
                await trio.sleep(0.005)

    async with trio.open_nursery() as nursery:
        await nursery.start(api)
        async with open_machine(valkey, {"t": Play()}, slots=1):
            pass
        await written.wait()
    assert 0 < db.ttl(f"worker:{WORKER}") <= 120
    assert db.smembers("workers:active") == set()


def _state(message: dict[str, Any]) -> dict[str, Any]:
    return dict(message["status"]["workers"][WORKER])


async def _sick(self: Connector) -> Health:
    raise ServiceError("no connection")


async def test_the_first_status_is_the_initial_one(valkey: str, ear: Ear) -> None:
    async with open_machine(valkey, {"t": Play()}):
        assert on(ear, "machine:status:m1")[0]["update_type"] == "initial"


async def test_under_an_aggregator_only_its_events_are_published(valkey: str, db: Any, ear: Ear) -> None:
    play = Play()
    play.finish.set()
    async with open_machine(valkey, {"t": play}, slots=1, unified=True, beat_every=0.1):
        await until_status(db, submit(db, "t"), "completed")
        await eventually(lambda: db.hget(f"worker:{WORKER}", "status") == "idle")
        assert db.exists(f"worker:{WORKER}:heartbeat")  # kept alive in both modes
    heard = ear.heard()
    channels = {channel for channel, _ in heard}
    assert not channels & {"worker:events", f"worker_status:{WORKER}", "machine:status:m1"}
    events = [(m["event_type"], m["data"]) for c, m in heard if c == f"machine:m1:worker:{WORKER}"]
    assert [kind for kind, _ in events] == [
        "worker_status_changed",  # idle
        "worker_status_changed",  # busy
        "job_started",
        "worker_status_changed",  # idle
        "job_completed",
        "worker_status_changed",  # offline
    ]
    assert events[0][1]["capabilities"] == ["t"]
    assert events[2][1]["service_type"] == events[4][1]["service_type"] == "t"


async def test_an_aggregator_hears_of_services_that_fail_and_recover(valkey: str, ear: Ear) -> None:
    healthy = [True]

    async def health(self: Connector) -> Health:
        return Health(healthy=healthy[0], detail="not now")

    async with open_machine(valkey, {"t": Play(health=health)}, slots=1, unified=True, health_every=0.05):
        healthy[0] = False
        said = await eventually(lambda: [m for m in on(ear, f"machine:m1:worker:{WORKER}") if "health" in m["data"]])
        assert said[-1]["event_type"] == "connector_status_changed"
        assert said[-1]["data"] == {"service_type": "t-service", "status": "error", "health": "unhealthy"}
        healthy[0] = True
        said = await eventually(lambda: [m for m in on(ear, f"machine:m1:worker:{WORKER}") if "health" in m["data"]])
        assert said[-1]["data"]["health"] == "healthy"


@pytest.mark.parametrize("slow", [False, True])
async def test_slots_are_registered_with_the_services_that_work(valkey: str, ear: Ear, slow: bool) -> None:
    """Who joins is believed at its first word, so health is known before; a slow service holds up nobody else."""

    async def health(self: Connector) -> Health:
        await trio.sleep(5 if slow else 0.1)
        return Health(healthy=True)

    async with open_machine(valkey, {"t": Play(health=health), "u": Play()}, slots=1):
        events = on(ear, "worker:events")
    services = {m["worker_id"]: m["worker_data"]["capabilities"]["services"] for m in events}
    assert services == {WORKER: [] if slow else ["t"], "m1-worker-u-0": ["u"]}


async def test_a_service_without_a_health_check_is_offered(valkey: str, db: Any) -> None:
    play = Play(service_features=ServiceFeatures(health_check=False), health=_sick)
    play.finish.set()
    async with open_machine(valkey, {"t": play}):
        await until_status(db, submit(db, "t"), "completed")


async def test_a_job_never_starts_where_its_service_is_down(valkey: str, db: Any) -> None:
    up = Play()
    up.finish.set()
    async with open_machine(valkey, {"t": Play(health=_sick), "u": up}):
        waiting = submit(db, "t")
        await until_status(db, submit(db, "u"), "completed")
        assert db.hget(f"job:{waiting}", "status") == "pending"
        assert json.loads(db.hget(f"worker:{WORKER}", "capabilities"))["services"] == []


async def test_a_slot_says_busy_and_idle_around_every_job_however_it_ends(valkey: str, db: Any, ear: Ear) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, slots=1, beat_every=30.0):
        job_id = submit(db, "t")
        await play.until_begun()
        await until_status(db, job_id, "in_progress")
        cancel_as_api(db, job_id)
        await play.until_over()
        await eventually(lambda: db.hget(f"worker:{WORKER}", "status") == "idle")
        assert db.hget(f"worker:{WORKER}", "current_job_id") == ""
        play.finish.set()
        await until_status(db, submit(db, "t"), "completed")
        heard = ear.heard("worker_status", f"machine:m1:worker:{WORKER}")
    changes = [(m["old_status"], m["new_status"]) for c, m in heard if c == "worker_status"]
    assert changes == [("idle", "busy"), ("busy", "idle")] * 2
    assert [m["data"]["status"] for c, m in heard if c != "worker_status"] == ["idle", *["busy", "idle"] * 2]


async def test_counters_of_a_slot(valkey: str, db: Any) -> None:
    play = Play()
    play.finish.set()
    async with open_machine(valkey, {"t": play}, slots=1, beat_every=0.05):
        for _ in range(2):
            await until_status(db, submit(db, "t"), "completed")
        await until_status(db, submit(db, "t", "{"), "failed")
        await eventually(lambda: db.hget(f"worker:{WORKER}", "total_jobs_failed") == "1")
        assert db.hget(f"worker:{WORKER}", "total_jobs_completed") == "2"
