"""The executor driver against a fake agent, beyond the defects of pymesos (test_defects.py)."""

import base64
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from proto.mesos import CallFailed, ExecutorDriver, NotConnected
from tests.mesos_api.defects import TASK_ID, Drivers
from tests.mesos_api.fake_mesos import Answer, FakeMesos
from tests.mesos_api.recorders import RecordingExecutor, wait_until

ENVIRON = {
    "MESOS_AGENT_ENDPOINT": "127.0.0.1:5051",
    "MESOS_FRAMEWORK_ID": "framework-1",
    "MESOS_EXECUTOR_ID": "executor-1",
}


@pytest.fixture
def drivers() -> Iterator[Drivers]:
    with Drivers(original=False) as drivers:
        yield drivers


def connected(drivers: Drivers, agent: FakeMesos, **variables: str) -> tuple[ExecutorDriver, RecordingExecutor]:
    executor = RecordingExecutor()
    driver = drivers.executor(executor, agent.address, **variables)
    driver.start()
    executor.wait("registered")
    return driver, executor


def status(state: str, task_id: str = "t1") -> dict[str, Any]:
    return {"task_id": {"value": task_id}, "state": state}


def acknowledge(agent: FakeMesos, sent: dict[str, Any]) -> None:
    agent.streams[-1].send({"type": "ACKNOWLEDGED", "acknowledged": {"task_id": sent["task_id"], "uuid": sent["uuid"]}})


@pytest.mark.parametrize("missing", sorted(ENVIRON))
def test_not_started_by_an_agent(missing: str) -> None:
    environ = {name: value for name, value in ENVIRON.items() if name != missing}
    with pytest.raises(ValueError, match=f"{missing} is not set: an executor is started by a Mesos agent"):
        ExecutorDriver(RecordingExecutor(), environ=environ)


def test_a_bad_duration() -> None:
    with pytest.raises(ValueError, match="MESOS_RECOVERY_TIMEOUT is not a duration as Mesos writes them, like 15mins"):
        ExecutorDriver(
            RecordingExecutor(), environ={**ENVIRON, "MESOS_CHECKPOINT": "1", "MESOS_RECOVERY_TIMEOUT": "soon"}
        )


@pytest.mark.parametrize(
    ("variables", "checkpoint", "recovery_s", "backoff_s", "grace_s"),
    [
        ({}, False, 0.0, 2.0, 5.0),
        ({"MESOS_CHECKPOINT": "0", "MESOS_RECOVERY_TIMEOUT": "15mins"}, False, 0.0, 2.0, 5.0),
        ({"MESOS_CHECKPOINT": "1"}, True, 900.0, 2.0, 5.0),
        (
            {
                "MESOS_CHECKPOINT": "1",
                "MESOS_RECOVERY_TIMEOUT": "2hrs",
                "MESOS_SUBSCRIPTION_BACKOFF_MAX": "500ms",
                "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": "1.5secs",
            },
            True,
            7200.0,
            0.5,
            1.5,
        ),
    ],
)
def test_the_environment(
    variables: dict[str, str], checkpoint: bool, recovery_s: float, backoff_s: float, grace_s: float
) -> None:
    driver = ExecutorDriver(RecordingExecutor(), environ={**ENVIRON, **variables})
    assert driver.checkpoint is checkpoint
    assert driver.recovery_timeout_s == recovery_s
    assert driver._backoff.max_s == backoff_s
    assert driver.grace_shutdown_period == grace_s


def test_subscribing(drivers: Drivers) -> None:
    agent = drivers.agent()
    _, executor = connected(drivers, agent)
    call = agent.wait_call("SUBSCRIBE")
    assert call.path == "/api/v1/executor"
    assert call.body == {
        "type": "SUBSCRIBE",
        "framework_id": {"value": "framework-1"},
        "executor_id": {"value": "executor-1"},
        "subscribe": {"unacknowledged_tasks": [], "unacknowledged_updates": []},
    }
    executor_info, framework_info, agent_info = executor.wait("registered")
    assert executor_info["executor_id"] == {"value": "executor-1"}
    assert framework_info["name"] == "fake"
    assert agent_info["hostname"] == "localhost"


def test_an_update(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, _ = connected(drivers, agent)
    given = status("TASK_RUNNING")
    before = time.time()
    sent = driver.sendStatusUpdate(given)
    assert given == status("TASK_RUNNING"), "the caller's status was changed"
    call = agent.wait_call("UPDATE")
    assert call.body["update"]["status"] == sent
    assert call.body["executor_id"] == sent["executor_id"] == {"value": "executor-1"}
    assert call.headers["mesos-stream-id"] == agent.streams[0].id
    assert len(base64.b64decode(sent["uuid"])) == 16
    assert sent["source"] == "SOURCE_EXECUTOR"
    assert before <= sent["timestamp"] <= time.time()


def test_updates_arrive_in_order_from_many_threads(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, _ = connected(drivers, agent)

    def send(thread: int) -> None:
        for number in range(20):
            driver.sendStatusUpdate(status("TASK_RUNNING", f"{thread}.{number}"))

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    agent.wait_call("UPDATE", 80)
    seen = [call.body["update"]["status"] for call in agent.calls_of("UPDATE")]
    for thread in range(4):
        numbers = [int(s["task_id"]["value"].split(".")[1]) for s in seen if s["task_id"]["value"][0] == str(thread)]
        assert numbers == list(range(20))
    assert len({s["uuid"] for s in seen}) == 80


def test_waiting_for_acknowledgements(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, _ = connected(drivers, agent)
    assert driver.wait_acknowledged(0)
    first, last = driver.sendStatusUpdate(status("TASK_RUNNING")), driver.sendStatusUpdate(status("TASK_FINISHED"))
    agent.wait_call("UPDATE", 2)
    acknowledge(agent, first)
    assert not driver.wait_acknowledged(0.2)
    timer = threading.Timer(0.1, acknowledge, (agent, last))
    timer.start()
    assert driver.wait_acknowledged(5)
    timer.join()
    acknowledge(agent, last)  # twice does no harm


def test_waiting_ends_when_the_driver_does(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, _ = connected(drivers, agent)
    driver.sendStatusUpdate(status("TASK_RUNNING"))
    timer = threading.Timer(0.1, driver.stop)
    timer.start()
    assert not driver.wait_acknowledged(30)
    timer.join()


def test_updates_from_before_the_subscription_travel_with_it(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver = drivers.executor(RecordingExecutor(), agent.address)
    driver.sendStatusUpdate(status("TASK_RUNNING"))
    driver.start()
    told = agent.wait_call("SUBSCRIBE").body["subscribe"]["unacknowledged_updates"]
    assert [update["status"]["state"] for update in told] == ["TASK_RUNNING"]
    agent.wait_stream()
    driver.sendStatusUpdate(status("TASK_FINISHED"))
    agent.wait_call("UPDATE")
    assert len(agent.calls_of("UPDATE")) == 1, "the first came with the subscription"


def test_an_update_whose_answer_is_lost_is_told_again(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, executor = connected(drivers, agent)
    agent.call_answers["UPDATE"].append(Answer(0, drop=True))
    sent = driver.sendStatusUpdate(status("TASK_FINISHED"))
    told = agent.wait_call("SUBSCRIBE", 2).body["subscribe"]["unacknowledged_updates"]
    assert told == [{"status": sent}]
    executor.wait("disconnected")
    executor.wait("reregistered")


def test_an_agent_that_is_recovering(drivers: Drivers) -> None:
    agent = drivers.agent()
    agent.subscribe_answers.extend([Answer(404), Answer(503, b"Agent has not finished recovery")])
    _, executor = connected(drivers, agent)
    assert len(agent.calls_of("SUBSCRIBE")) == 3
    assert not executor.args_of("shutdown")


def test_an_agent_that_does_not_know_this_executor(drivers: Drivers) -> None:
    agent = drivers.agent()
    agent.subscribe_answers.append(Answer(403, b"Framework cannot be found"))
    executor = RecordingExecutor()
    driver = drivers.executor(executor, agent.address)
    driver.start()
    executor.wait("shutdown")
    assert "403: Framework cannot be found" in executor.wait("error")[0]
    assert driver.join(5)


def test_launch_group(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, executor = connected(drivers, agent)
    tasks = [{"task_id": {"value": name}} for name in "ab"]
    for _ in range(2):
        agent.streams[0].send({"type": "LAUNCH_GROUP", "launch_group": {"task_group": {"tasks": tasks}}})
    agent.streams[0].send({"type": "MESSAGE", "message": {"data": ""}})
    executor.wait("frameworkMessage")
    assert executor.args_of("launchTaskGroup") == [(tasks,)]
    assert sorted(driver.tasks) == ["a", "b"]


def test_a_kill_without_policy(drivers: Drivers) -> None:
    agent = drivers.agent()
    _, executor = connected(drivers, agent)
    agent.streams[0].send({"type": "KILL", "kill": {"task_id": TASK_ID}})
    assert executor.wait("killTask") == (TASK_ID, None)


def test_shutdown_is_told_once(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, executor = connected(drivers, agent)
    for _ in range(2):
        agent.streams[0].send({"type": "SHUTDOWN"})
    agent.streams[0].send({"type": "MESSAGE", "message": {"data": ""}})
    executor.wait("frameworkMessage")
    assert len(executor.args_of("shutdown")) == 1
    assert driver.connected


def test_an_error_of_the_agent(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, executor = connected(drivers, agent)
    agent.streams[0].send({"type": "ERROR", "error": {"message": "go away"}})
    assert executor.wait("error") == ("go away",)
    assert driver.join(5)
    assert len(agent.calls_of("SUBSCRIBE")) == 1


def test_messages(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, executor = connected(drivers, agent)
    driver.sendFrameworkMessage("aGk=")
    assert agent.wait_call("MESSAGE").body["message"] == {"data": "aGk="}
    agent.call_answers["MESSAGE"].append(Answer(0, drop=True))
    with pytest.raises(CallFailed):
        driver.sendFrameworkMessage("aGk=")
    agent.stop()
    executor.wait("disconnected")
    with pytest.raises(NotConnected):
        driver.sendFrameworkMessage("aGk=")


def test_gone_for_a_short_while_is_not_gone(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, executor = connected(drivers, agent, MESOS_RECOVERY_TIMEOUT="5secs", MESOS_SUBSCRIPTION_BACKOFF_MAX="200ms")
    agent.stop()
    executor.wait("disconnected")
    wait_until(lambda: driver.last_error and "refused" in driver.last_error, 5, "no attempt")
    again = drivers.agent(agent.port)
    again.wait_stream()
    executor.wait("reregistered")
    assert not executor.args_of("shutdown")
