"""The drivers with a real master and agent: what the fake ones of these tests do is what Mesos does."""

import base64
import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from proto.mesos import CallRefused, SchedulerDriver
from tests.mesos_api.fake_mesos import subscribed_scheduler
from tests.mesos_api.real_mesos import CHECKOUT, RealMesos
from tests.mesos_api.recorders import RecordingScheduler, wait_until

pytestmark = pytest.mark.cluster

FRAMEWORK = {
    "name": "driver test",
    "user": os.environ.get("USER", "root"),
    "roles": ["*"],
    "capabilities": [{"type": "MULTI_ROLE"}],
    "checkpoint": True,
}


@pytest.fixture(scope="module")
def mesos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMesos]:
    mesos = RealMesos(tmp_path_factory.mktemp("mesos"))
    yield mesos
    mesos.stop()


def connect(mesos: RealMesos, framework: Any = FRAMEWORK, **on: Any) -> tuple[SchedulerDriver, RecordingScheduler]:
    sched = RecordingScheduler(**on)
    driver = SchedulerDriver(sched, framework, mesos.master)
    driver.start()
    wait_until(lambda: driver.connected, 20, "not connected")
    return driver, sched


def test_a_task_with_our_executor(mesos: RealMesos) -> None:
    """Subscribe, offers, launch with `python -m executor`, updates, acknowledgements, reconciliation, teardown."""
    driver, sched = connect(mesos)
    ((offer, *_),) = sched.wait("resourceOffers", timeout_s=20)
    task = {
        "name": "t1",
        "task_id": {"value": "t1"},
        "agent_id": offer["agent_id"],
        "resources": [scalar("cpus", 0.1, offer), scalar("mem", 32, offer)],
        "data": base64.b64encode(json.dumps({"do": "sleep"}).encode()).decode(),
        "executor": {
            "type": "CUSTOM",
            "executor_id": {"value": "e1"},
            "framework_id": {"value": driver.framework_id},
            "resources": [scalar("cpus", 0.1, offer), scalar("mem", 64, offer)],
            "command": {
                "value": f"exec {sys.executable} -m tests.mesos_executor.run_executor",
                "environment": {"variables": [{"name": "PYTHONPATH", "value": str(CHECKOUT)}]},
            },
        },
    }
    driver.launchTasks([offer["id"]], [task])
    (starting,) = sched.wait("statusUpdate", timeout_s=20)
    assert starting["state"] == "TASK_STARTING"
    driver.acknowledgeStatusUpdate(starting)
    (running,) = sched.wait("statusUpdate", 2)
    assert running["state"] == "TASK_RUNNING", "the second update follows the acknowledgement of the first"
    driver.acknowledgeStatusUpdate(running)
    driver.reconcileTasks([{"task_id": {"value": "t1"}, "agent_id": offer["agent_id"]}])
    (reconciled,) = sched.wait("statusUpdate", 3)
    assert (reconciled["reason"], "uuid" in reconciled) == ("REASON_RECONCILIATION", False)
    driver.killTask({"value": "t1"}, {"grace_period": {"nanoseconds": 1_000_000_000}}, offer["agent_id"])
    (killed,) = sched.wait("statusUpdate", 4)
    assert killed["state"] == "TASK_KILLED"
    driver.acknowledgeStatusUpdate(killed)
    driver.teardown()
    assert driver.join(5)
    mesos.wait_no_framework()
    assert not sched.args_of("error")
    assert not sched.args_of("disconnected")


def scalar(name: str, value: float, offer: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": "SCALAR",
        "scalar": {"value": value},
        "allocation_info": offer["allocation_info"],
    }


def test_the_fake_master_says_what_the_real_one_says(mesos: RealMesos) -> None:
    """Field names of the first event, and the answers to calls that are accepted and refused."""
    seen: list[dict[str, Any]] = []
    sched = RecordingScheduler()
    driver = SchedulerDriver(sched, FRAMEWORK, mesos.master)
    subscribed = driver.on_subscribed
    driver.on_subscribed = lambda info: (seen.append(info), subscribed(info))
    driver.start()
    sched.wait("registered", timeout_s=20)
    sched.wait("processHeartBeat", timeout_s=5)
    fake_call = type("Call", (), {"body": {}})()
    fake = subscribed_scheduler()(fake_call)[0]["subscribed"]
    assert set(fake) <= set(seen[0])
    assert isinstance(seen[0]["heartbeat_interval_seconds"], float)
    assert set(fake["master_info"]) <= set(seen[0]["master_info"])
    assert driver.version == "1.11.0"
    assert driver.stream_id
    driver.suppressOffers()
    driver.reviveOffers()
    with pytest.raises(CallRefused) as caught:
        driver.killTask("not a TaskID")
    assert caught.value.status == 400
    driver.teardown()
    assert driver.join(5)


def test_a_framework_that_fails_over(mesos: RealMesos) -> None:
    """The second driver of a framework takes over; the first is told so, and does not fight."""
    driver, sched = connect(mesos)
    framework_id = driver.framework_id
    successor, seen = connect(mesos, {**FRAMEWORK, "id": {"value": framework_id}})
    assert successor.framework_id == framework_id
    seen.wait("reregistered")
    assert sched.wait("error") == ("Framework failed over",)
    assert driver.join(5)
    # A driver that only stops leaves its framework, and the next one finds it.
    successor.stop()
    assert successor.join(5)
    wait_until(lambda: [f["active"] for f in mesos.state()["frameworks"]] == [False], 10, "it is not kept")
    last, _ = connect(mesos, {**FRAMEWORK, "id": {"value": framework_id}})
    last.teardown()
    assert last.join(5)
    mesos.wait_no_framework()
    gone = RecordingScheduler()
    late = SchedulerDriver(gone, {**FRAMEWORK, "id": {"value": framework_id}}, mesos.master)
    late.start()
    assert "removed" in gone.wait("error")[0]
    assert late.join(5)


def test_suppressed_roles(mesos: RealMesos) -> None:
    sched = RecordingScheduler()
    driver = SchedulerDriver(sched, FRAMEWORK, mesos.master, suppressed_roles=["*"])
    driver.start()
    sched.wait("registered", timeout_s=20)
    assert not threading.Event().wait(1.5)
    assert not sched.args_of("resourceOffers")
    driver.reviveOffers()
    sched.wait("resourceOffers")
    driver.teardown()
    assert driver.join(5)


def test_a_framework_that_mesos_refuses(mesos: RealMesos) -> None:
    sched = RecordingScheduler()
    driver = SchedulerDriver(sched, {"name": "x", "user": "root", "roles": ["a/../b"]}, mesos.master)
    driver.start()
    assert "a/../b" in sched.wait("error")[0] or "role" in sched.wait("error")[0]
    assert driver.join(5)


def test_the_master_restarts(mesos: RealMesos) -> None:
    driver, sched = connect(mesos)
    framework_id = driver.framework_id
    mesos.kill_master()
    sched.wait("disconnected")
    sched.wait("connectionFailed")
    mesos.start_master()
    sched.wait("reregistered", timeout_s=20)
    assert driver.framework_id == framework_id
    sched.wait("resourceOffers", timeout_s=20)
    driver.teardown()
    assert driver.join(5)
    mesos.wait_no_framework()
