"""Points 33 to 40 of the checklist (docs/mesos.md): the executor under real agents, which are killed and restarted."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.mesos_api.real_mesos import RealMesos
from tests.mesos_api.recorders import wait_until
from tests.mesos_checklist.mesos_proxy import FORWARD, SWALLOW, Call, MesosProxy, Verdict
from tests.mesos_executor.test_real_agent import (
    Framework,
    executor_processes,
    is_alive,
    label,
    note_of,
    running,
    sandbox_file,
)

pytestmark = pytest.mark.cluster

REGISTRATION_S = 10
RECOVERY_S = 3.0
TOKEN = "header.claims.signature"
GRACE_S = 4.0  # shutdown_grace_period of the executors that Framework launches


@pytest.fixture(scope="module")
def mesos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMesos]:
    """An agent that gives its executors 10 s to register and, when it is gone, RECOVERY_S to live."""
    mesos = RealMesos(
        tmp_path_factory.mktemp("mesos"),
        executor_registration_timeout=f"{REGISTRATION_S}secs",
        recovery_timeout=f"{RECOVERY_S:g}secs",
        executor_reregistration_timeout="3secs",
    )
    yield mesos
    mesos.stop()


@pytest.fixture
def proxy(mesos: RealMesos) -> Iterator[MesosProxy]:
    """Before the agent."""
    with MesosProxy(mesos.agent) as proxy:
        yield proxy
        assert proxy.errors == []


@pytest.fixture
def framework(mesos: RealMesos, proxy: MesosProxy) -> Iterator[Framework]:
    """Its executors speak through the proxy."""
    wait_until(lambda: has_agent(mesos), 20, "no agent")
    # The embedded Mesos cannot make tokens (its build lacks OpenSSL): the framework stands in for such an agent.
    environment = {"AGENT_PROXY": proxy.address, "MESOS_EXECUTOR_AUTHENTICATION_TOKEN": TOKEN}
    with running(Framework(mesos.master, environment)) as framework:
        yield framework


def has_agent(mesos: RealMesos) -> bool:
    """Whether the agent is registered."""
    try:
        return any(agent["active"] for agent in mesos.state()["slaves"])
    except (OSError, ValueError):  # the master is starting
        return False


def updates(proxy: MesosProxy, task_id: str) -> list[str]:
    """States of the UPDATE calls of a task."""
    statuses = [call.payload["status"] for call in proxy.of("UPDATE")]
    return [status["state"] for status in statuses if status["task_id"]["value"] == task_id]


def launch_sleeper(framework: Framework, mesos: RealMesos, task_id: str, **data: Any) -> dict[str, Any]:
    """Launches a task that sleeps; returns its note when it does."""
    framework.launch(task_id, {"do": "sleep", **data})
    framework.wait(task_id, "TASK_RUNNING")
    return note_of(framework, mesos, task_id)


def test_point_33_subscribes_in_time(framework: Framework, mesos: RealMesos, proxy: MesosProxy) -> None:
    launch_sleeper(framework, mesos, "prompt")
    (executor,) = executor_processes(framework)
    (subscribe,) = proxy.of("SUBSCRIBE")
    started_s_ago = time.time() - executor.create_time()
    took_s = started_s_ago - (time.monotonic() - subscribe.time)
    assert took_s < REGISTRATION_S / 2, "and the agent allows a minute by default"


def test_point_34_what_is_not_acknowledged_is_told_again(
    framework: Framework, mesos: RealMesos, proxy: MesosProxy
) -> None:
    """The agent is killed before it takes an update, and a task ends while it is away: it hears of both when back."""
    lost = launch_sleeper(framework, mesos, "lost")
    away = launch_sleeper(framework, mesos, "away")

    def swallow_the_end(call: Call) -> Verdict:
        ends = call.kind == "UPDATE" and call.payload["status"]["state"] == "TASK_FINISHED"
        return SWALLOW if ends else FORWARD

    proxy.rule = swallow_the_end
    os.kill(lost["pid"], signal.SIGTERM)
    wait_until(lambda: "TASK_FINISHED" in updates(proxy, "lost"), 10, "no update")
    mesos.kill_agent()
    os.kill(away["pid"], signal.SIGTERM)
    wait_until(lambda: "task away ended" in (sandbox_file(framework, mesos, "stderr") or ""), 10, "it does not end")
    mesos.start_agent()
    framework.wait("lost", "TASK_FINISHED", timeout_s=30)
    framework.wait("away", "TASK_FINISHED", timeout_s=30)
    told = proxy.of("SUBSCRIBE")[-1].payload["unacknowledged_updates"]
    assert {u["status"]["task_id"]["value"] for u in told if u["status"]["state"] == "TASK_FINISHED"} == {
        "lost",
        "away",
    }
    assert proxy.swallowed
    assert framework.states("lost").count("TASK_FINISHED") == 1, "the agent knows an update by its uuid"


def test_point_35_comes_back_in_time(framework: Framework, mesos: RealMesos, proxy: MesosProxy) -> None:
    """A checkpointed executor tries again at least every 2 s (MESOS_SUBSCRIPTION_BACKOFF_MAX), and keeps its tasks."""
    pid = launch_sleeper(framework, mesos, "survivor")["pid"]
    (executor,) = executor_processes(framework)
    backoff_max_s = float(executor.environ()["MESOS_SUBSCRIPTION_BACKOFF_MAX"].removesuffix("secs"))
    before = len(proxy.of("SUBSCRIBE"))
    mesos.kill_agent()
    wait_until(lambda: len(proxy.of("SUBSCRIBE")) >= before + 4, 10, "it does not try")
    mesos.start_agent()
    wait_until(lambda: len(proxy.events_of("SUBSCRIBED")) == 2, 20, "not subscribed again")
    times = [call.time for call in proxy.of("SUBSCRIBE")][before:]
    assert max(later - sooner for sooner, later in itertools.pairwise(times)) < backoff_max_s + 0.5
    framework.driver.killTask({"value": "survivor"})
    framework.wait("survivor", "TASK_KILLED")
    assert not is_alive(pid)
    assert executor.is_running()


def test_point_35_ends_when_the_agent_stays_away(framework: Framework, mesos: RealMesos) -> None:
    """After the recovery timeout it ends itself, with children that ignore SIGTERM and what they started."""
    note = launch_sleeper(framework, mesos, "orphan", ignore=True, fork=True)
    (executor,) = executor_processes(framework)
    mesos.kill_agent()
    begun = time.monotonic()
    executor.wait(RECOVERY_S + GRACE_S + 5)
    assert time.monotonic() - begun > RECOVERY_S / 3, "it did not wait for its agent"
    assert not is_alive(note["pid"])
    assert not is_alive(note["grandchild"])
    mesos.start_agent()
    wait_until(lambda: set(framework.states("orphan")) & {"TASK_LOST", "TASK_FAILED", "TASK_GONE"}, 30, "not told")


@pytest.mark.parametrize("checkpoint", [True, False])
def test_point_36_the_variable_is_0_or_1(mesos: RealMesos, checkpoint: bool) -> None:
    """Without checkpointing the executor ends with its agent, at once."""
    wait_until(lambda: has_agent(mesos), 20, "no agent")
    with running(Framework(mesos.master, checkpoint=checkpoint)) as framework:
        note = launch_sleeper(framework, mesos, "task")
        (executor,) = executor_processes(framework)
        assert executor.environ()["MESOS_CHECKPOINT"] == ("1" if checkpoint else "0")
        if not checkpoint:
            mesos.kill_agent()
            executor.wait(RECOVERY_S / 2)
            assert not is_alive(note["pid"])
            mesos.start_agent()


def test_point_37_updates(framework: Framework, mesos: RealMesos, proxy: MesosProxy) -> None:
    """STARTING, RUNNING, the end, each with a uuid of its own; the executor waits for the last acknowledgement."""
    launch_sleeper(framework, mesos, "steady")
    framework.launch("quick", {"do": "exit", "code": 0})
    framework.wait("quick", "TASK_FINISHED")
    assert framework.states("quick") == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
    (executor,) = executor_processes(framework)
    delay_s = 0.3
    proxy.rule = lambda call: delay_s if call.kind == "UPDATE" else FORWARD
    framework.driver.shutdownExecutor({"value": "executor-1"}, framework.updates[0]["agent_id"])
    framework.wait("steady", "TASK_KILLED")
    executor.wait(GRACE_S)
    last = next(call for call in reversed(proxy.of("UPDATE")))
    assert last.payload["status"]["state"] == "TASK_KILLED"
    acknowledged = {event.body["acknowledged"]["uuid"] for event in proxy.events_of("ACKNOWLEDGED")}
    assert last.payload["status"]["uuid"] in acknowledged
    uuids = [call.payload["status"]["uuid"] for call in proxy.of("UPDATE")]
    assert len(set(uuids)) == len(uuids)


def test_point_38_kill_policy(framework: Framework, mesos: RealMesos) -> None:
    """The grace period of the KILL goes over that of the TaskInfo."""
    framework.launch("stubborn", {"do": "sleep", "ignore": True}, grace_s=60)
    framework.wait("stubborn", "TASK_RUNNING")
    note_of(framework, mesos, "stubborn")
    begun = time.monotonic()
    framework.driver.killTask({"value": "stubborn"}, {"grace_period": {"nanoseconds": 500_000_000}})
    status = framework.wait("stubborn", "TASK_KILLED", timeout_s=10)
    assert 0.4 < time.monotonic() - begun < 8
    assert label(status, "signal") == "SIGKILL"
    assert "TASK_KILLING" in framework.states("stubborn")


def test_point_38_killing_only_if_wanted(mesos: RealMesos) -> None:
    with running(Framework(mesos.master, capabilities=[{"type": "MULTI_ROLE"}])) as framework:
        launch_sleeper(framework, mesos, "plain")
        framework.driver.killTask({"value": "plain"})
        framework.wait("plain", "TASK_KILLED")
        assert framework.states("plain") == ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"]


def test_point_39_shutdown(framework: Framework, mesos: RealMesos) -> None:
    """All children end, with all they started, KILLED is told for each, within the grace period."""
    notes = [
        launch_sleeper(framework, mesos, "polite"),
        launch_sleeper(framework, mesos, "rude", ignore=True, fork=True),
    ]
    (executor,) = executor_processes(framework)
    begun = time.monotonic()
    framework.driver.shutdownExecutor({"value": "executor-1"}, framework.updates[0]["agent_id"])
    for task_id in ("polite", "rude"):
        assert framework.wait(task_id, "TASK_KILLED", timeout_s=8)["source"] == "SOURCE_EXECUTOR"
    executor.wait(5)
    assert time.monotonic() - begun < GRACE_S + 0.5
    assert not any(is_alive(note[key]) for note in notes for key in ("pid", "grandchild") if key in note)


def test_point_40_authentication(framework: Framework, mesos: RealMesos, proxy: MesosProxy) -> None:
    """The token that the executor is given is on every call, and no task inherits it."""
    note = launch_sleeper(framework, mesos, "task")
    assert {call.kind for call in proxy.calls} >= {"SUBSCRIBE", "UPDATE"}
    assert {call.headers.get("authorization") for call in proxy.calls} == {f"Bearer {TOKEN}"}
    assert TOKEN not in str(note["env"])
    assert TOKEN not in str(psutil.Process(note["pid"]).environ())
    assert proxy.refusals == []


def test_point_40_stable_reasons(framework: Framework, mesos: RealMesos) -> None:
    """How a task ended is in labels and in the first line of the message, always in the same words."""
    framework.launch("code", {"do": "exit", "code": 3})
    framework.launch("signal", {"do": "signal", "signal": int(signal.SIGSEGV)})
    coded = framework.wait("code", "TASK_FAILED")
    assert label(coded, "exit_code") == "3"
    assert coded["message"].startswith("exit code 3")
    signalled = framework.wait("signal", "TASK_FAILED")
    assert label(signalled, "signal") == "SIGSEGV"
    assert signalled["message"].startswith("ended by SIGSEGV")
    assert sandbox_file(framework, mesos, "code.stderr") == "the reason of it all\n"
