"""Defects of pymesos 0.3.15, each as a scenario that a sound driver survives.

A scenario gets a Drivers object, which makes either pymesos' drivers or ours, and fails by an assertion (or by what
the driver raises). test_defects.py runs each with both.
"""

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest import mock

from tests.mesos_api.fake_mesos import CERTIFICATE, Answer, FakeMesos, fake_agent, subscribed_scheduler
from tests.mesos_api.recorders import RecordingExecutor, RecordingScheduler, wait_until

FRAMEWORK = {"name": "test", "user": "nobody", "roles": ["*"], "capabilities": [{"type": "MULTI_ROLE"}]}
OFFERS = {"type": "OFFERS", "offers": {"offers": [{"id": {"value": "o1"}, "agent_id": {"value": "a1"}}]}}
TASK_ID = {"value": "t1"}
AGENT_ID = {"value": "a1"}


class Drivers:
    """Makes drivers and fakes, and cleans up after them."""

    def __init__(self, original: bool) -> None:
        self.original = original
        self.fakes: list[FakeMesos] = []
        self._cleanup = ExitStack()

    def __enter__(self) -> "Drivers":
        return self

    def __exit__(self, *exc: Any) -> None:
        self._cleanup.close()

    def master(self, **options: Any) -> FakeMesos:
        fake = FakeMesos(**options)
        self.fakes.append(fake)
        self._cleanup.callback(fake.stop)
        return fake

    def agent(self, port: int = 0, tls: bool = False) -> FakeMesos:
        fake = fake_agent(port, tls)
        self._cleanup.callback(fake.stop)
        return fake

    def scheduler(self, sched: Any, master: str, framework: Any = None, **options: Any) -> Any:
        framework = dict(FRAMEWORK) if framework is None else framework
        if self.original:
            import pymesos

            options.pop("call_timeout_s", None)
            options.setdefault("implicit_acknowledgements", False)
            driver = pymesos.MesosSchedulerDriver(sched, framework, master, **options)
            self._cleanup.callback(driver.stop, failover=True)
        else:
            from proto.mesos import SchedulerDriver

            driver = SchedulerDriver(sched, framework, master, **options)
            self._cleanup.callback(driver.join, 10)
            self._cleanup.callback(driver.stop)
        return driver

    def executor(self, executor: Any, agent: str, **variables: str) -> Any:
        environ = {
            "MESOS_AGENT_ENDPOINT": agent,
            "MESOS_FRAMEWORK_ID": "framework-1",
            "MESOS_EXECUTOR_ID": "executor-1",
            "MESOS_CHECKPOINT": "1",
            "MESOS_LOCAL": "1",  # or pymesos kills its process group
            **variables,
        }
        if self.original:
            import pymesos

            os.environ.update(environ)
            driver = pymesos.MesosExecutorDriver(executor)
        else:
            from proto.mesos import ExecutorDriver

            driver = ExecutorDriver(executor, environ=environ)
            self._cleanup.callback(driver.join, 10)
        self._cleanup.callback(driver.stop)
        return driver

    def connected_scheduler(self, master: FakeMesos, **options: Any) -> tuple[Any, RecordingScheduler]:
        sched = RecordingScheduler()
        driver = self.scheduler(sched, master.address, **options)
        driver.start()
        sched.wait("registered")
        return driver, sched


@dataclass(frozen=True)
class Defect:
    """A scenario, and a regular expression for how pymesos fails it."""

    name: str
    run: Callable[[Drivers], None]
    symptom: str


DEFECTS: dict[str, Defect] = {}


def defect(symptom: str) -> Callable[[Callable[[Drivers], None]], Callable[[Drivers], None]]:
    def register(run: Callable[[Drivers], None]) -> Callable[[Drivers], None]:
        name = run.__name__
        DEFECTS[name] = Defect(name, run, symptom)
        return run

    return register


def _raise(*args: Any) -> None:
    raise RuntimeError("a mistake in a callback")


# --- scheduler: the framework's life -------------------------------------------------------------------------------


@defect(symptom="calls: .*TEARDOWN")
def callback_exception_changes_nothing(drivers: Drivers) -> None:
    master = drivers.master()
    sched = RecordingScheduler(resourceOffers=_raise)
    drivers.scheduler(sched, master.address).start()
    sched.wait("registered")
    master.wait_stream().send(OFFERS)
    master.wait_stream().send({"type": "RESCIND", "rescind": {"offer_id": {"value": "o1"}}})
    sched.wait("offerRescinded", timeout_s=3)
    assert not master.calls_of("TEARDOWN"), "the framework was torn down"
    assert len(master.streams) == 1


@defect(symptom="torn down")
def stop_keeps_the_framework(drivers: Drivers) -> None:
    master = drivers.master()
    driver, _ = drivers.connected_scheduler(master)
    driver.stop()
    driver.join()
    assert not master.calls_of("TEARDOWN"), "the framework was torn down"


@defect(symptom="not aborted")
def error_event_aborts(drivers: Drivers) -> None:
    master = drivers.master()
    driver, sched = drivers.connected_scheduler(master)
    stream = master.wait_stream()
    stream.send({"type": "ERROR", "error": {"message": "Framework failed over"}})
    stream.close()
    assert sched.wait("error") == ("Framework failed over",)
    wait_until(lambda: driver.aborted, 3, "the driver was not aborted")
    stream.closed.wait(5)
    driver.join()
    assert len(master.calls_of("SUBSCRIBE")) == 1, "it subscribed again"


@defect(symptom="TypeError: .*join")
def join_has_a_timeout(drivers: Drivers) -> None:
    driver, _ = drivers.connected_scheduler(drivers.master())
    assert driver.join(0.05) is False
    driver.stop()
    assert driver.join(5) is True


@defect(symptom="failover_timeout is 100")
def tasks_survive_a_week_without_a_driver(drivers: Drivers) -> None:
    master = drivers.master()
    drivers.connected_scheduler(master)
    info = master.wait_call("SUBSCRIBE").body["subscribe"]["framework_info"]
    assert info["failover_timeout"] >= 7 * 24 * 3600, f"failover_timeout is {info['failover_timeout']}"


@defect(symptom="GPU_RESOURCES")
def no_gpus_unless_asked(drivers: Drivers) -> None:
    master = drivers.master()
    drivers.connected_scheduler(master)
    info = master.wait_call("SUBSCRIBE").body["subscribe"]["framework_info"]
    assert info["capabilities"] == FRAMEWORK["capabilities"], f"capabilities are {info['capabilities']}"


@defect(symptom="invalid literal|0 of 1 callbacks registered")
def version_with_a_suffix(drivers: Drivers) -> None:
    master = drivers.master(version="1.11.0-rc1", first_events=subscribed_scheduler(version="1.11.0-rc1"))
    driver, sched = drivers.connected_scheduler(master)
    master.wait_stream().send(OFFERS)
    assert sched.wait("resourceOffers", timeout_s=3)[0][0]["id"] == {"value": "o1"}
    assert driver.version == "1.11.0-rc1"


@defect(symptom="the caller's FrameworkInfo was changed")
def framework_info_is_the_callers(drivers: Drivers) -> None:
    framework = dict(FRAMEWORK)
    drivers.connected_scheduler(drivers.master(), framework=framework)
    assert framework == FRAMEWORK, "the caller's FrameworkInfo was changed"


# --- scheduler: the connection -------------------------------------------------------------------------------------


@defect(symptom="1 of 2 calls SUBSCRIBE")
def missed_heartbeats_end_the_subscription(drivers: Drivers) -> None:
    master = drivers.master(first_events=subscribed_scheduler(heartbeat_s=0.1))
    _, sched = drivers.connected_scheduler(master)
    master.wait_call("SUBSCRIBE", count=2, timeout_s=4)
    sched.wait("disconnected")
    sched.wait("reregistered")


def _count_subscriptions(drivers: Drivers, master: FakeMesos, seconds: float) -> int:
    drivers.scheduler(RecordingScheduler(), master.address).start()
    master.wait_call("SUBSCRIBE")
    threading.Event().wait(seconds)
    return len(master.calls_of("SUBSCRIBE"))


@defect(symptom="SUBSCRIBE calls in 2 s")
def unavailable_master_is_not_flooded(drivers: Drivers) -> None:
    master = drivers.master()
    master.subscribe_answers.extend([Answer(503, b"not elected")] * 100_000)
    count = _count_subscriptions(drivers, master, 2.0)
    assert 3 <= count <= 12, f"{count} SUBSCRIBE calls in 2 s"


@defect(symptom="SUBSCRIBE calls in 2 s")
def closing_master_is_not_flooded(drivers: Drivers) -> None:
    master = drivers.master()
    master.close_after_events = True
    count = _count_subscriptions(drivers, master, 2.0)
    assert 3 <= count <= 12, f"{count} SUBSCRIBE calls in 2 s"


@defect(symptom="too many values|invalid literal")
def ipv6(drivers: Drivers) -> None:
    master = drivers.master(host="::1")
    driver, sched = drivers.connected_scheduler(master)
    assert sched.wait("registered")[1]["port"] == master.port
    driver.killTask(TASK_ID)
    master.wait_call("KILL")


@defect(symptom="gaierror|gave up")
def name_lookup_is_tried_again(drivers: Drivers) -> None:
    driver = drivers.scheduler(RecordingScheduler(), "master.invalid:5050")
    driver.start()
    threading.Event().wait(1.5)
    assert not driver.aborted, "it gave up"


@defect(symptom="filedescriptor out of range")
def many_open_files(drivers: Drivers) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with ExitStack() as files:
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            files.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        driver, _ = drivers.connected_scheduler(drivers.master())
        driver.declineOffer({"value": "o1"})
        driver.stop()
        driver.join()


@defect(symptom="reads of 4096 bytes")
def large_events_are_read_in_large_pieces(drivers: Drivers) -> None:
    """pymesos reads 4 KiB at a time and copies all that came before with each: its time grows with the square."""
    sizes: list[int] = []

    class CountingSocket(socket.socket):
        def recv(self, *args: Any) -> bytes:
            data = super().recv(*args)
            sizes.append(len(data))
            return data

    master = drivers.master()
    plain, socket.socket = socket.socket, CountingSocket  # type: ignore[misc]
    try:
        _, sched = drivers.connected_scheduler(master)
    finally:
        socket.socket = plain  # type: ignore[misc]
    offers = [{"id": {"value": str(i)}, "attributes": "x" * 1000} for i in range(4000)]
    master.wait_stream().send({"type": "OFFERS", "offers": {"offers": offers}})
    sched.wait("resourceOffers", timeout_s=60)
    assert sum(sizes) > 4e6
    assert sum(sizes) / len(sizes) > 8192, f"{len(sizes)} reads of {max(sizes)} bytes"


TLS = {"LIBPROCESS_SSL_ENABLED": "1", "LIBPROCESS_SSL_CA_FILE": str(CERTIFICATE)}


@defect(symptom="0 of 1 callbacks registered")
def tls_to_the_master(drivers: Drivers) -> None:
    master = drivers.master(tls=True)
    sched = RecordingScheduler()
    with mock.patch.dict(os.environ, TLS):
        driver = drivers.scheduler(sched, f"localhost:{master.port}")
    driver.start()
    sched.wait("registered", timeout_s=4)
    offers = [{"id": {"value": str(i)}, "attributes": "x" * 1000} for i in range(2000)]
    master.wait_stream().send({"type": "OFFERS", "offers": {"offers": offers}})
    assert len(sched.wait("resourceOffers")[0]) == 2000
    for count in (1, 2):
        driver.declineOffer({"value": "o1"})
        master.wait_call("DECLINE", count)


@defect(symptom="0 of 1 callbacks registered")
def tls_to_the_agent(drivers: Drivers) -> None:
    agent = drivers.agent(tls=True)
    executor = RecordingExecutor()
    driver = drivers.executor(executor, f"localhost:{agent.port}", **TLS)
    driver.start()
    executor.wait("registered", timeout_s=4)
    driver.sendStatusUpdate({"task_id": TASK_ID, "state": "TASK_RUNNING"})
    agent.wait_call("UPDATE")


@defect(symptom="suppressed_roles")
def suppressed_roles_stay_so(drivers: Drivers) -> None:
    master = drivers.master()
    driver, sched = drivers.connected_scheduler(master, framework={**FRAMEWORK, "roles": ["a", "b"]})
    driver.suppressOffers(["a"])
    master.wait_stream().close()
    subscribe = master.wait_call("SUBSCRIBE", count=2).body["subscribe"]
    assert subscribe.get("suppressed_roles") == ["a"], "suppressed_roles are not told"
    sched.wait("reregistered")
    driver.reviveOffers()
    master.wait_stream(2).close()
    assert master.wait_call("SUBSCRIBE", count=3).body["subscribe"]["suppressed_roles"] == []


# --- scheduler: calls ----------------------------------------------------------------------------------------------


@defect(symptom="still waiting")
def calls_have_a_deadline(drivers: Drivers) -> None:
    if drivers.original:
        import pymesos

        pymesos.MesosSchedulerDriver._timeout = 0.5  # its knob, which Process.__init__ overrides with a day
    master = drivers.master()
    driver, _ = drivers.connected_scheduler(master, call_timeout_s=0.5)
    master.hold.clear()
    errors: list[BaseException] = []

    def call() -> None:
        try:
            driver.declineOffer({"value": "o1"})
        except (RuntimeError, OSError) as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(4)
    waiting = thread.is_alive()
    master.hold.set()
    thread.join(5)
    assert not waiting, "the call is still waiting"
    assert type(errors[0]).__name__ == "CallFailed"


@defect(symptom="blocked")
def a_stuck_call_holds_nobody_up(drivers: Drivers) -> None:
    master = drivers.master()
    driver, sched = drivers.connected_scheduler(master)
    master.hold.clear()
    stuck = threading.Thread(target=driver.declineOffer, args=({"value": "o1"},), daemon=True)
    stuck.start()
    master.wait_call("DECLINE")
    other = threading.Thread(target=lambda: (driver.connected, driver.killTask(TASK_ID)), daemon=True)
    other.start()
    try:
        master.wait_call("KILL", timeout_s=2)
    except AssertionError:
        raise AssertionError("the other thread was blocked") from None
    finally:
        master.hold.set()
        other.join(5)
        stuck.join(5)
    assert not sched.args_of("disconnected")


@defect(symptom="silently dropped")
def calls_without_connection_raise(drivers: Drivers) -> None:
    driver = drivers.scheduler(RecordingScheduler(), "127.0.0.1:1", framework={**FRAMEWORK, "id": {"value": "f"}})
    calls: list[Callable[[], Any]] = [
        lambda: driver.launchTasks([{"value": "o1"}], [{"task_id": TASK_ID}]),
        lambda: driver.acceptOffers([{"value": "o1"}], [{"type": "LAUNCH"}]),
        lambda: driver.declineOffer([{"value": "o1"}]),
        lambda: driver.acceptInverseOffers([{"value": "o1"}]),
        lambda: driver.declineInverseOffer([{"value": "o1"}]),
        lambda: driver.killTask(TASK_ID),
        lambda: driver.acknowledgeStatusUpdate({"uuid": "u", "task_id": TASK_ID, "agent_id": AGENT_ID}),
        lambda: driver.reconcileTasks([]),
        lambda: driver.suppressOffers(),
        lambda: driver.reviveOffers(),
        lambda: driver.sendFrameworkMessage({"value": "e"}, AGENT_ID, ""),
        lambda: driver.teardown(),
    ]
    for number, call in enumerate(calls):
        try:
            call()
        except RuntimeError as error:
            assert type(error).__name__ == "NotConnected", error  # noqa: PT017
        else:
            raise AssertionError(f"call {number} was silently dropped")


@defect(symptom="Failed to send request 307")
def redirected_calls_are_followed(drivers: Drivers) -> None:
    master, leader = drivers.master(), drivers.master()
    driver, _ = drivers.connected_scheduler(master)
    master.call_answers["DECLINE"].append(Answer(307, headers={"Location": f"//{leader.address}/api/v1/scheduler"}))
    driver.declineOffer({"value": "o1"})
    call = leader.wait_call("DECLINE")
    assert call.path == "/api/v1/scheduler"
    assert call.headers["mesos-stream-id"] == master.streams[0].id


@defect(symptom="secret of another driver")
def headers_are_not_shared(drivers: Drivers) -> None:
    master, other_master = drivers.master(), drivers.master()
    driver, _ = drivers.connected_scheduler(master, principal="me", secret="mine")
    driver.declineOffer({"value": "o1"})
    other, _ = drivers.connected_scheduler(other_master)
    other.declineOffer({"value": "o1"})
    assert "authorization" in master.wait_call("DECLINE").headers
    assert "authorization" not in other_master.wait_call("DECLINE").headers, "the secret of another driver was sent"


@defect(symptom="agent_id")
def reconcile_names_agents(drivers: Drivers) -> None:
    master = drivers.master()
    driver, _ = drivers.connected_scheduler(master)
    tasks = [{"task_id": TASK_ID, "agent_id": AGENT_ID}, {"task_id": {"value": "t2"}}]
    driver.reconcileTasks(tasks)
    assert master.wait_call("RECONCILE").body["reconcile"]["tasks"] == tasks, "agent_id is missing"


@defect(symptom="TypeError: .*killTask")
def kill_hands_on_its_policy(drivers: Drivers) -> None:
    master = drivers.master()
    driver, _ = drivers.connected_scheduler(master)
    policy = {"grace_period": {"nanoseconds": 3_000_000_000}}
    driver.killTask(TASK_ID, policy)
    assert master.wait_call("KILL").body["kill"] == {"task_id": TASK_ID, "kill_policy": policy}


@defect(symptom="AttributeError: .*shutdownExecutor")
def executors_can_be_shut_down(drivers: Drivers) -> None:
    master = drivers.master()
    driver, _ = drivers.connected_scheduler(master)
    driver.shutdownExecutor({"value": "e1"}, AGENT_ID)
    assert master.wait_call("SHUTDOWN").body["shutdown"] == {"executor_id": {"value": "e1"}, "agent_id": AGENT_ID}


@defect(symptom="AttributeError: .*updateFramework")
def the_framework_can_be_updated(drivers: Drivers) -> None:
    master = drivers.master()
    driver, _ = drivers.connected_scheduler(master)
    driver.updateFramework({**FRAMEWORK, "roles": ["x"]})
    info = master.wait_call("UPDATE_FRAMEWORK").body["update_framework"]["framework_info"]
    assert (info["id"], info["roles"]) == ({"value": "framework-1"}, ["x"])


# --- import ----------------------------------------------------------------------------------------------------------


@defect(symptom="offer_constraints")
def offer_constraints_are_told(drivers: Drivers) -> None:
    master = drivers.master()
    group = {"attribute_constraints": [{"selector": {"attribute_name": "rack"}, "predicate": {"exists": {}}}]}
    constraints = {"role_constraints": {"*": {"groups": [group]}}}
    drivers.connected_scheduler(master, offer_constraints=constraints)
    assert master.wait_call("SUBSCRIBE").body["subscribe"]["offer_constraints"] == constraints


@defect(symptom="calls: .*TEARDOWN")
def a_heartbeat_callback_of_another_form(drivers: Drivers) -> None:
    """Schedulers written for earlier releases, as tfmesos and dpark, have one that this release calls in vain."""

    class Old(RecordingScheduler):
        callbacks = tuple(name for name in RecordingScheduler.callbacks if name != "processHeartBeat")

        def processHeartBeat(self) -> None: ...

    master = drivers.master()
    sched = Old()
    drivers.scheduler(sched, master.address).start()
    sched.wait("registered")
    master.wait_stream().send({"type": "HEARTBEAT"})
    master.wait_stream().send({"type": "RESCIND", "rescind": {"offer_id": {"value": "o1"}}})
    sched.wait("offerRescinded", timeout_s=3)
    assert not master.calls_of("TEARDOWN"), "the framework was torn down"


# --- scheduler: ZooKeeper ------------------------------------------------------------------------------------------


@defect(symptom="not said to ZooKeeper")
def zookeeper_credentials_are_used(drivers: Drivers) -> None:
    import kazoo.client

    given: list[Any] = []
    plain = kazoo.client.KazooClient

    class Noting(plain):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            given.append(options.get("auth_data"))
            super().__init__("127.0.0.1:1")

        def start(self, timeout: float = 0.0) -> None:
            raise self.handler.timeout_exception("nobody is there")

    kazoo.client.KazooClient = Noting
    if drivers.original:
        import pymesos.detector

        pymesos.detector.ZKClient = Noting
    try:
        driver = drivers.scheduler(RecordingScheduler(), "zk://me:my%20secret@127.0.0.1:1/mesos")
        with contextlib.suppress(Exception):  # whatever becomes of the connection
            driver.start()
        wait_until(lambda: given, 5, "no client was made")
    finally:
        kazoo.client.KazooClient = plain
    assert given[0] == [("digest", "me:my secret")], "the credentials were not said to ZooKeeper"


@defect(symptom="gave up")
def zookeeper_is_tried_again(drivers: Drivers) -> None:
    """It is away for longer than a client waits for it; then it is there."""
    from proto import mesos_detector

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    patience_s, mesos_detector.START_TIMEOUT_S = mesos_detector.START_TIMEOUT_S, 0.3
    try:
        failed = threading.Event()
        sched = RecordingScheduler(connectionFailed=lambda *args: failed.set())
        driver = drivers.scheduler(sched, f"zk://127.0.0.1:{port}/mesos")
        try:
            driver.start()
        except Exception as error:  # noqa: BLE001 - kazoo's own
            raise AssertionError(f"it gave up: {error}") from None
        assert failed.wait(10)
        with socket.create_server(("127.0.0.1", port)) as server:
            server.settimeout(15)
            server.accept()[0].close()
    finally:
        mesos_detector.START_TIMEOUT_S = patience_s


@defect(symptom="signal only works in main thread")
def import_in_any_thread(drivers: Drivers) -> None:
    module = "pymesos" if drivers.original else "proto.mesos"
    code = (
        "import importlib, logging, signal, sys, threading\n"
        "handler = signal.getsignal(signal.SIGINT)\n"
        "failed = []\n"
        "threading.excepthook = lambda args: failed.append(args.exc_value)\n"
        f"thread = threading.Thread(target=importlib.import_module, args=[{module!r}])\n"
        "thread.start(); thread.join()\n"
        "assert not failed, failed\n"
        "assert signal.getsignal(signal.SIGINT) is handler, 'SIGINT'\n"
        "assert not logging.getLogger('pymesos').handlers, 'logging'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@defect(symptom="SIGINT")
def import_leaves_signals_alone(drivers: Drivers) -> None:
    module = "pymesos" if drivers.original else "proto.mesos"
    code = (
        "import signal\n"
        "handler = signal.getsignal(signal.SIGINT)\n"
        f"import {module}\n"
        "assert signal.getsignal(signal.SIGINT) is handler, 'the handler of SIGINT was replaced'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- executor --------------------------------------------------------------------------------------------------------


def _launch(task_id: str = "t1") -> dict[str, Any]:
    return {"type": "LAUNCH", "launch": {"task": {"task_id": {"value": task_id}, "name": task_id}}}


def _connected_executor(drivers: Drivers, agent: FakeMesos, **variables: str) -> tuple[Any, RecordingExecutor]:
    executor = RecordingExecutor()
    driver = drivers.executor(executor, agent.address, **variables)
    driver.start()
    executor.wait("registered")
    return driver, executor


@defect(symptom="not told again")
def unacknowledged_updates_are_told_again(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, executor = _connected_executor(drivers, agent)
    agent.wait_stream().send(_launch())
    executor.wait("launchTask")
    for state in ("TASK_STARTING", "TASK_RUNNING"):
        driver.sendStatusUpdate({"task_id": TASK_ID, "state": state})
    sent = [agent.wait_call("UPDATE", count).body["update"]["status"] for count in (1, 2)]
    acknowledged = {"task_id": TASK_ID, "uuid": sent[0]["uuid"]}
    agent.wait_stream().send({"type": "ACKNOWLEDGED", "acknowledged": acknowledged})
    agent.wait_stream().send({"type": "MESSAGE", "message": {"data": ""}})
    executor.wait("frameworkMessage")
    agent.wait_stream().close()
    subscribe = agent.wait_call("SUBSCRIBE", count=2).body["subscribe"]
    told = [update["status"]["uuid"] for update in subscribe["unacknowledged_updates"]]
    assert told == [sent[1]["uuid"]], "updates were not told again"
    assert subscribe["unacknowledged_tasks"] == [], "an acknowledged task was told again"


@defect(symptom="RuntimeError: Not connected yet")
def updates_are_kept_while_the_agent_is_away(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, executor = _connected_executor(drivers, agent)
    agent.wait_stream().send(_launch())
    executor.wait("launchTask")
    agent.stop()
    executor.wait("disconnected")
    driver.sendStatusUpdate({"task_id": TASK_ID, "state": "TASK_FINISHED"})
    again = drivers.agent(agent.port)
    subscribe = again.wait_call("SUBSCRIBE").body["subscribe"]
    assert [update["status"]["state"] for update in subscribe["unacknowledged_updates"]] == ["TASK_FINISHED"]
    assert [task["name"] for task in subscribe["unacknowledged_tasks"]] == ["t1"]


@defect(symptom="0 of 1 callbacks shutdown")
def executor_without_checkpoint_ends_with_its_agent(drivers: Drivers) -> None:
    agent = drivers.agent()
    _, executor = _connected_executor(drivers, agent, MESOS_CHECKPOINT="0")
    agent.stop()
    executor.wait("shutdown", timeout_s=3)


@defect(symptom="0 of 1 calls SUBSCRIBE")
def executor_comes_back_in_time(drivers: Drivers) -> None:
    agent = drivers.agent()
    _, executor = _connected_executor(drivers, agent, MESOS_SUBSCRIPTION_BACKOFF_MAX="500ms")
    agent.stop()
    executor.wait("disconnected")
    threading.Event().wait(2.8)
    drivers.agent(agent.port).wait_call("SUBSCRIBE", timeout_s=1.2)


@defect(symptom="0 of 1 callbacks shutdown")
def executor_gives_up_after_the_recovery_timeout(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, executor = _connected_executor(
        drivers, agent, MESOS_RECOVERY_TIMEOUT="1secs", MESOS_SUBSCRIPTION_BACKOFF_MAX="300ms"
    )
    agent.stop()
    executor.wait("disconnected")
    began = time.monotonic()
    executor.wait("shutdown", timeout_s=4)
    assert time.monotonic() - began > 0.4, "it gave up at once"
    driver.join()


@defect(symptom="kill_policy")
def executor_gets_the_kill_policy(drivers: Drivers) -> None:
    agent = drivers.agent()
    _, executor = _connected_executor(drivers, agent)
    policy = {"grace_period": {"nanoseconds": 1}}
    agent.wait_stream().send({"type": "KILL", "kill": {"task_id": TASK_ID, "kill_policy": policy}})
    assert executor.wait("killTask") == (TASK_ID, policy), "kill_policy was dropped"


@defect(symptom="authorization")
def executor_authenticates(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, _ = _connected_executor(drivers, agent, MESOS_EXECUTOR_AUTHENTICATION_TOKEN="abc.def.ghi")
    driver.sendStatusUpdate({"task_id": TASK_ID, "state": "TASK_RUNNING"})
    for kind in ("SUBSCRIBE", "UPDATE"):
        assert agent.wait_call(kind).headers.get("authorization") == "Bearer abc.def.ghi", f"authorization of {kind}"
    environ = os.environ if drivers.original else driver._environ
    assert "MESOS_EXECUTOR_AUTHENTICATION_TOKEN" not in environ


@defect(symptom="FAILED AssertionError: $|0 of 1 callbacks frameworkMessage")
def executor_takes_a_launch_once(drivers: Drivers) -> None:
    agent = drivers.agent()
    _, executor = _connected_executor(drivers, agent)
    for event in (_launch(), _launch(), {"type": "MESSAGE", "message": {"data": "aGk="}}):
        agent.wait_stream().send(event)
    assert executor.wait("frameworkMessage", timeout_s=3) == ("aGk=",)
    assert len(executor.args_of("launchTask")) == 1


@defect(symptom="the same uuid")
def every_update_has_its_own_uuid(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, _ = _connected_executor(drivers, agent)
    status = {"task_id": TASK_ID, "state": "TASK_RUNNING"}
    driver.sendStatusUpdate(status)
    driver.sendStatusUpdate(status)
    uuids = [agent.wait_call("UPDATE", count).body["update"]["status"]["uuid"] for count in (1, 2)]
    assert uuids[0] != uuids[1], "both updates have the same uuid"


@defect(symptom="a mistake in a callback|0 of 1 callbacks frameworkMessage")
def callback_exception_in_the_executor_changes_nothing(drivers: Drivers) -> None:
    agent = drivers.agent()
    executor = RecordingExecutor(launchTask=_raise)
    drivers.executor(executor, agent.address).start()
    executor.wait("registered")
    agent.wait_stream().send(_launch())
    agent.wait_stream().send({"type": "MESSAGE", "message": {"data": "aGk="}})
    executor.wait("frameworkMessage", timeout_s=3)


@defect(symptom="ended before")
def last_updates_are_sent_after_shutdown(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, executor = _connected_executor(drivers, agent)
    agent.wait_stream().send({"type": "SHUTDOWN"})
    executor.wait("shutdown")
    threading.Event().wait(0.2)  # children take their time to end
    driver.sendStatusUpdate({"task_id": TASK_ID, "state": "TASK_KILLED"})
    assert agent.wait_call("UPDATE", timeout_s=3).body["update"]["status"]["state"] == "TASK_KILLED"
    for count in (1, 2):
        agent.wait_stream().send({"type": "MESSAGE", "message": {"data": ""}})
        try:
            executor.wait("frameworkMessage", count, timeout_s=1)
        except AssertionError:
            raise AssertionError("the subscription ended before the update was acknowledged") from None


@defect(symptom="was lost")
def an_update_refused_once_is_told_again(drivers: Drivers) -> None:
    agent = drivers.agent()
    driver, _ = _connected_executor(drivers, agent)
    agent.call_answers["UPDATE"].append(Answer(503, b"recovering"))
    try:
        driver.sendStatusUpdate({"task_id": TASK_ID, "state": "TASK_FINISHED"})
        subscribe = agent.wait_call("SUBSCRIBE", count=2, timeout_s=5).body["subscribe"]
    except (RuntimeError, AssertionError):
        raise AssertionError("the update was lost") from None
    assert [update["status"]["state"] for update in subscribe["unacknowledged_updates"]] == ["TASK_FINISHED"]


def main() -> None:
    """Runs one scenario with pymesos; for test_defects.py, in a process that pymesos may interrupt as it likes."""
    drivers = Drivers(original=True)
    try:
        DEFECTS[sys.argv[1]].run(drivers)
    except BaseException as error:  # noqa: BLE001 - pymesos interrupts the main thread; that is a finding, not an end
        print(f"FAILED {type(error).__name__}: {error}")
        for thread in threading.enumerate():
            if thread.name == "Process IO":
                thread.join(0.5)  # it may have last words, like TEARDOWN
        print("calls:", *(call.body.get("type") for fake in drivers.fakes for call in fake.calls[:100]), flush=True)
        os._exit(1)
    print("PASSED", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
