"""The scheduler driver against a fake master, beyond the defects of pymesos (test_defects.py)."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from proto.backoff import Backoff
from proto.mesos import CallFailed, CallRefused, NotConnected, Scheduler, SchedulerDriver
from tests.mesos_api.defects import AGENT_ID, FRAMEWORK, OFFERS, TASK_ID, Drivers
from tests.mesos_api.fake_mesos import Answer, FakeMesos, subscribed_scheduler
from tests.mesos_api.recorders import RecordingScheduler, wait_until


@pytest.fixture
def drivers() -> Iterator[Drivers]:
    with Drivers(original=False) as drivers:
        yield drivers


def kinds(master: FakeMesos) -> list[str]:
    return [call.body["type"] for call in master.calls]


# --- subscribing ----------------------------------------------------------------------------------


def test_constructing_does_nothing(drivers: Drivers) -> None:
    master = drivers.master()
    threads = threading.active_count()
    driver = drivers.scheduler(RecordingScheduler(), master.address)
    assert threading.active_count() == threads
    assert master.calls == []
    assert not driver.connected
    assert driver.join(0)


@pytest.mark.parametrize(
    "uri", ["", "host:port", "host:0", "a:1:2:x", "http://host:5050", "zk://host:2181", "zk://host/"]
)
def test_a_master_that_cannot_be_understood(uri: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        SchedulerDriver(Scheduler(), FRAMEWORK, uri)


def test_the_framework_id_is_sent_in_both_places(drivers: Drivers) -> None:
    master = drivers.master()
    driver, sched = drivers.connected_scheduler(master)
    first = master.wait_call("SUBSCRIBE")
    assert "framework_id" not in first.body
    assert "mesos-stream-id" not in first.headers
    assert driver.framework_id == "framework-1"
    framework_id, master_info = sched.wait("registered")
    assert framework_id == {"value": "framework-1"}
    assert [master_info[key] for key in ("hostname", "port", "version")] == ["127.0.0.1", master.port, "1.11.0"]

    master.streams[0].close()
    sched.wait("disconnected")
    second = master.wait_call("SUBSCRIBE", 2)
    assert second.body["framework_id"] == {"value": "framework-1"}
    assert second.body["subscribe"]["framework_info"]["id"] == {"value": "framework-1"}
    assert "mesos-stream-id" not in second.headers
    sched.wait("reregistered")
    assert len(sched.threads) == 1


def test_a_restarted_framework_reregisters(drivers: Drivers) -> None:
    master = drivers.master()
    sched = RecordingScheduler()
    drivers.scheduler(sched, master.address, framework={**FRAMEWORK, "id": {"value": "old"}}).start()
    sched.wait("reregistered")
    assert master.calls[0].body["framework_id"] == {"value": "old"}


def test_what_is_sent_to_subscribe(drivers: Drivers) -> None:
    driver = drivers.scheduler(
        RecordingScheduler(), "localhost", principal="me", suppressed_roles=["b", "a"], offer_constraints={"x": {}}
    )
    assert driver.subscribe_call() == {
        "type": "SUBSCRIBE",
        "subscribe": {
            "framework_info": {**FRAMEWORK, "failover_timeout": 604800.0, "principal": "me"},
            "suppressed_roles": ["a", "b"],
            "offer_constraints": {"x": {}},
        },
    }


def test_gpus_if_asked(drivers: Drivers) -> None:
    framework = {**FRAMEWORK, "failover_timeout": 1.0, "capabilities": [{"type": "GPU_RESOURCES"}]}
    assert drivers.scheduler(RecordingScheduler(), "localhost", framework=framework).framework == framework


def test_the_leader_is_found_by_redirection(drivers: Drivers) -> None:
    master, leader = drivers.master(), drivers.master()
    master.subscribe_answers.append(Answer(307, headers={"Location": f"//{leader.address}/api/v1/scheduler"}))
    sched = RecordingScheduler()
    driver = drivers.scheduler(sched, master.address)
    driver.start()
    assert sched.wait("registered")[1]["port"] == leader.port
    assert driver.master == leader.address
    driver.reviveOffers()
    leader.wait_call("REVIVE")
    # When that leader dies, the configured master is asked again.
    leader.stop()
    sched.wait("reregistered")
    assert driver.master == master.address


def test_masters_that_redirect_in_a_circle_are_not_flooded(drivers: Drivers) -> None:
    one, two = drivers.master(), drivers.master()
    for here, there in ((one, two), (two, one)):
        answer = Answer(307, headers={"Location": f"//{there.address}"})
        here.subscribe_answers.extend([answer] * 10_000)
    drivers.scheduler(RecordingScheduler(), one.address).start()
    two.wait_call("SUBSCRIBE", 2)
    threading.Event().wait(1.5)
    assert len(one.calls) + len(two.calls) < 12


@pytest.mark.parametrize("status", [400, 403, 409])
def test_a_refused_framework_aborts(drivers: Drivers, status: int) -> None:
    master = drivers.master()
    master.subscribe_answers.append(Answer(status, b"Invalid 'FrameworkInfo.roles'"))
    sched = RecordingScheduler()
    driver = drivers.scheduler(sched, master.address)
    driver.start()
    (message,) = sched.wait("error")
    assert f"HTTP {status}: Invalid 'FrameworkInfo.roles'" in message
    assert master.address in message
    assert driver.join(5)
    assert len(master.calls) == 1


@pytest.mark.parametrize(
    ("secret", "words"), [(None, "demands the secret of"), ("wrong", "does not accept the secret given for")]
)
def test_a_master_that_authenticates(drivers: Drivers, secret: str | None, words: str) -> None:
    master = drivers.master()
    master.subscribe_answers.append(Answer(401, b"401 Unauthorized."))
    sched = RecordingScheduler()
    driver = drivers.scheduler(sched, master.address, principal="me", secret=secret)
    driver.start()
    (message,) = sched.wait("error")
    assert message == f"the master at {master.address} {words} principal 'me' (HTTP 401)"
    assert driver.join(5)
    assert len(master.calls) == 1


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_master_that_is_starting_is_tried_again(drivers: Drivers, status: int) -> None:
    master = drivers.master()
    master.subscribe_answers.append(Answer(status, b"later"))
    sched = RecordingScheduler()
    drivers.scheduler(sched, master.address).start()
    sched.wait("registered")
    assert f"HTTP {status}: later" in sched.wait("connectionFailed")[0]
    assert not sched.args_of("disconnected"), "it was never connected"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>", {"Content-Type": "text/html"}),
        Answer(307, headers={"Location": "//:x"}),
        Answer(307),
        Answer(0, drop=True),
    ],
    ids=["no stream", "bad redirection", "redirection without target", "closed"],
)
def test_what_is_no_master_is_told_and_tried_again(drivers: Drivers, answer: Answer) -> None:
    master = drivers.master()
    master.subscribe_answers.append(answer)
    sched = RecordingScheduler()
    drivers.scheduler(sched, master.address).start()
    sched.wait("registered")
    assert master.address in sched.wait("connectionFailed")[0]


@pytest.mark.parametrize(
    "piece", [b"x\n{}", b"-1\n{}", b"5\n{bad}", b"999999999999\n", b"1" * 30], ids=["x", "-1", "json", "huge", "digits"]
)
def test_a_broken_stream_is_begun_anew(drivers: Drivers, piece: bytes) -> None:
    master = drivers.master()
    _, sched = drivers.connected_scheduler(master)
    master.streams[0].send_bytes(piece)
    sched.wait("reregistered")
    assert "not an answer of Mesos" in sched.wait("connectionFailed")[0]


def test_events_that_are_not_understood_change_nothing(drivers: Drivers) -> None:
    master = drivers.master()
    _, sched = drivers.connected_scheduler(master)
    for event in ({"type": "FROM_THE_FUTURE", "from_the_future": {}}, {"type": "OFFERS"}, {}, {"type": "HEARTBEAT"}):
        master.streams[0].send(event)
    sched.wait("processHeartBeat", 2)
    assert len(master.streams) == 1
    assert not sched.args_of("error")


def test_what_does_not_speak_http(drivers: Drivers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sched = RecordingScheduler()
        drivers.scheduler(sched, f"127.0.0.1:{server.getsockname()[1]}").start()
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            assert "not an answer of Mesos" in sched.wait("connectionFailed")[0]


def test_the_back_off_begins_anew_after_a_long_subscription(drivers: Drivers) -> None:
    master = drivers.master()
    sched = RecordingScheduler()
    backoff = Backoff(first_s=0.01, max_s=0.2)
    drivers.scheduler(sched, master.address, backoff=backoff).start()
    for count in range(1, 8):
        master.wait_stream(count).close()
    master.wait_stream(8)
    assert backoff.next_s() >= 0.1, "subscriptions that break at once do not make it begin anew"
    threading.Event().wait(0.25)
    master.streams[-1].close()
    master.wait_stream(9)
    assert backoff.next_s() <= 0.02


# --- the driver's life ----------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["connected", "backing off", "no answer", "a callback"])
def test_stop_is_quick(drivers: Drivers, when: str) -> None:
    sched = RecordingScheduler(**({"registered": lambda driver, *_: driver.stop()} if when == "a callback" else {}))
    with ExitStack() as sockets:
        silent = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
        master = drivers.master()
        address = f"127.0.0.1:{silent.getsockname()[1]}" if when == "no answer" else master.address
        if when == "backing off":
            master.subscribe_answers.extend([Answer(503)] * 100)
        driver = drivers.scheduler(sched, address, backoff=Backoff(first_s=30, max_s=30))
        driver.start()
        if when == "no answer":
            sockets.enter_context(silent.accept()[0])
        elif when == "backing off":
            sched.wait("connectionFailed")
        else:
            sched.wait("registered")
        began = time.monotonic()
        driver.stop()
        assert driver.join(5)
        assert time.monotonic() - began < 1.0
    assert not sched.args_of("disconnected"), "after stop() there are no callbacks"
    assert "TEARDOWN" not in kinds(master)


def test_stop_and_start_again(drivers: Drivers) -> None:
    master = drivers.master()
    driver, sched = drivers.connected_scheduler(master)
    driver.start()  # does nothing
    driver.stop()
    driver.start()
    sched.wait("reregistered")
    assert len(master.streams) == 2
    assert driver.connected


def test_teardown(drivers: Drivers) -> None:
    master = drivers.master()
    driver, sched = drivers.connected_scheduler(master)
    master.hold.clear()
    thread = threading.Thread(target=driver.teardown)
    thread.start()
    master.wait_call("TEARDOWN")
    master.streams[0].close()  # as Mesos does, before it answers
    assert master.streams[0].closed.wait(5)
    threading.Event().wait(0.3)
    master.hold.set()
    thread.join(5)
    assert driver.join(5)
    assert kinds(master) == ["SUBSCRIBE", "TEARDOWN"], "it subscribed anew, which Mesos would refuse"
    assert not sched.args_of("disconnected")


def test_a_call_that_meets_the_teardown_is_no_refusal(drivers: Drivers) -> None:
    """A callback may be declining an offer while another thread tears the framework down."""
    master = drivers.master()
    driver, _ = drivers.connected_scheduler(master)
    master.call_answers["KILL"].append(Answer(400, b"Framework cannot be found"))
    master.hold.clear()
    with ThreadPoolExecutor(2) as pool:
        teardown = pool.submit(driver.teardown)
        master.wait_call("TEARDOWN")
        kill = pool.submit(driver.killTask, TASK_ID)
        master.wait_call("KILL")
        master.hold.set()
        with pytest.raises(NotConnected, match="being torn down"):
            kill.result(5)
        teardown.result(5)
    assert driver.join(5)


def test_a_teardown_that_fails_can_be_tried_again(drivers: Drivers) -> None:
    master = drivers.master()
    driver, _ = drivers.connected_scheduler(master)
    master.call_answers["TEARDOWN"].append(Answer(500, b"no"))
    with pytest.raises(CallRefused, match="500: no"):
        driver.teardown()
    assert driver.connected
    driver.teardown()
    assert driver.join(5)


def test_another_master_takes_over(drivers: Drivers) -> None:
    master, next_master = drivers.master(), drivers.master()
    driver, sched = drivers.connected_scheduler(master)
    driver.change_master(None)
    sched.wait("disconnected")
    with pytest.raises(NotConnected):
        driver.killTask(TASK_ID)
    driver.change_master(next_master.address)
    sched.wait("reregistered")
    driver.killTask(TASK_ID)
    next_master.wait_call("KILL")
    driver.change_master(next_master.address)  # no news
    driver.killTask(TASK_ID)
    assert len(next_master.streams) == 1


def test_a_slow_callback_is_no_silence(drivers: Drivers) -> None:
    master = drivers.master(first_events=subscribed_scheduler(heartbeat_s=0.1))
    beating = threading.Event()

    def beat() -> None:
        while not beating.wait(0.05):
            for stream in list(master.streams):
                stream.send({"type": "HEARTBEAT"})

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        sched = RecordingScheduler(resourceOffers=lambda *args: beating.wait(1.5))
        drivers.scheduler(sched, master.address).start()
        master.wait_stream().send(OFFERS)
        master.wait_stream().send({"type": "RESCIND", "rescind": {"offer_id": {"value": "o1"}}})
        sched.wait("offerRescinded")
        threading.Event().wait(0.3)
        assert len(master.streams) == 1
    finally:
        beating.set()
        thread.join()


# --- events ---------------------------------------------------------------------------------------

OFFER = {"id": {"value": "o1"}, "agent_id": AGENT_ID}
STATUS = {"task_id": TASK_ID, "agent_id": AGENT_ID, "state": "TASK_RUNNING", "uuid": "dXVpZA=="}
EXECUTOR_ID = {"value": "e1"}


@pytest.mark.parametrize(
    ("event", "callback", "args"),
    [
        ({"type": "OFFERS", "offers": {"offers": [OFFER]}}, "resourceOffers", ([OFFER],)),
        (
            {"type": "INVERSE_OFFERS", "inverse_offers": {"inverse_offers": [OFFER]}},
            "inverseOffers",
            ([OFFER],),
        ),
        ({"type": "OFFERS", "offers": {"inverse_offers": [OFFER]}}, "inverseOffers", ([OFFER],)),
        ({"type": "RESCIND", "rescind": {"offer_id": OFFER["id"]}}, "offerRescinded", (OFFER["id"],)),
        (
            {"type": "RESCIND_INVERSE_OFFER", "rescind_inverse_offer": {"inverse_offer_id": OFFER["id"]}},
            "inverseOfferRescinded",
            (OFFER["id"],),
        ),
        ({"type": "UPDATE", "update": {"status": STATUS}}, "statusUpdate", (STATUS,)),
        (
            {"type": "MESSAGE", "message": {"executor_id": EXECUTOR_ID, "agent_id": AGENT_ID, "data": "aGk="}},
            "frameworkMessage",
            (EXECUTOR_ID, AGENT_ID, "aGk="),
        ),
        ({"type": "FAILURE", "failure": {"agent_id": AGENT_ID}}, "slaveLost", (AGENT_ID,)),
        (
            {"type": "FAILURE", "failure": {"agent_id": AGENT_ID, "executor_id": EXECUTOR_ID, "status": 9}},
            "executorLost",
            (EXECUTOR_ID, AGENT_ID, 9),
        ),
        ({"type": "FAILURE", "failure": {"executor_id": EXECUTOR_ID}}, "executorLost", (EXECUTOR_ID, {}, None)),
        ({"type": "ERROR", "error": {}}, "error", ("Mesos reported an error without a message",)),
        ({"type": "HEARTBEAT"}, "processHeartBeat", ()),
    ],
)
def test_events_become_callbacks(drivers: Drivers, event: Any, callback: str, args: tuple[Any, ...]) -> None:
    master = drivers.master()
    _, sched = drivers.connected_scheduler(master)
    master.streams[0].send(event)
    assert sched.wait(callback) == args
    assert not sched.args_of("callbackFailed")


def test_addict(drivers: Drivers) -> None:
    master = drivers.master()
    _, sched = drivers.connected_scheduler(master, use_addict=True)
    master.streams[0].send({"type": "UPDATE", "update": {"status": STATUS}})
    assert sched.wait("statusUpdate")[0].task_id.value == "t1"


@pytest.mark.parametrize("implicit", [False, True])
def test_acknowledgements(drivers: Drivers, implicit: bool) -> None:
    master = drivers.master()
    driver, sched = drivers.connected_scheduler(master, **({"implicit_acknowledgements": True} if implicit else {}))
    master.streams[0].send({"type": "UPDATE", "update": {"status": STATUS}})
    without_uuid = {key: STATUS[key] for key in ("task_id", "agent_id", "state")}
    master.streams[0].send({"type": "UPDATE", "update": {"status": without_uuid}})
    sched.wait("statusUpdate", 2)
    if not implicit:
        assert "ACKNOWLEDGE" not in kinds(master)
        driver.acknowledgeStatusUpdate(STATUS)
        driver.acknowledgeStatusUpdate(without_uuid)
    master.streams[0].send(OFFERS)
    sched.wait("resourceOffers")
    assert kinds(master).count("ACKNOWLEDGE") == 1
    acknowledge = master.wait_call("ACKNOWLEDGE").body["acknowledge"]
    assert acknowledge == {key: STATUS[key] for key in ("task_id", "agent_id", "uuid")}


class TestCallbackErrors:
    @staticmethod
    def wrong(*args: Any) -> None:
        raise KeyError("oops")

    def test_are_told(self, drivers: Drivers) -> None:
        master = drivers.master()
        sched = RecordingScheduler(resourceOffers=self.wrong)
        drivers.scheduler(sched, master.address).start()
        master.wait_stream().send(OFFERS)
        name, error = sched.wait("callbackFailed")
        assert name == "offers"
        assert isinstance(error, KeyError)
        assert not sched.args_of("error")

    def test_are_errors_for_a_scheduler_of_pymesos(self, drivers: Drivers) -> None:
        master = drivers.master()
        sched = RecordingScheduler(resourceOffers=self.wrong)
        del sched.callbackFailed, sched.connectionFailed
        drivers.scheduler(sched, master.address).start()
        master.wait_stream().send(OFFERS)
        assert sched.wait("error") == ("the callback for offers raised KeyError: 'oops'",)

    def test_even_of_the_callback_for_errors(self, drivers: Drivers) -> None:
        master = drivers.master()
        sched = RecordingScheduler(resourceOffers=self.wrong, callbackFailed=self.wrong, connectionFailed=self.wrong)
        master.subscribe_answers.append(Answer(503))
        drivers.scheduler(sched, master.address).start()
        master.wait_stream().send(OFFERS)
        master.wait_stream().send({"type": "HEARTBEAT"})
        sched.wait("processHeartBeat", 2)

    def test_a_broken_connection_is_none(self, drivers: Drivers) -> None:
        master = drivers.master()
        master.call_answers["DECLINE"].append(Answer(0, drop=True))
        master.call_answers["REVIVE"].append(Answer(400, b"what?"))
        sched = RecordingScheduler(
            resourceOffers=lambda driver, offers: driver.declineOffer(offers[0]["id"]),
            offerRescinded=lambda driver, offer: driver.reviveOffers(),
        )
        drivers.scheduler(sched, master.address).start()
        master.wait_stream().send(OFFERS)
        master.wait_stream().send({"type": "RESCIND", "rescind": {"offer_id": {"value": "o1"}}})
        name, error = sched.wait("callbackFailed")
        assert (name, type(error)) == ("rescind", CallRefused), "the refused call is a mistake, the broken one is not"
        assert len(sched.args_of("callbackFailed")) == 1


def test_the_base_class_turns_mistakes_into_errors(drivers: Drivers) -> None:
    class Mistaken(Scheduler):
        def __init__(self) -> None:
            self.errors: list[str] = []
            self.told = threading.Event()

        def registered(self, driver: Any, framework_id: Any, master_info: Any) -> None:
            raise TypeError("oops")

        def error(self, driver: Any, message: str) -> None:
            self.errors.append(message)
            self.told.set()

    sched = Mistaken()
    master = drivers.master()
    driver = drivers.scheduler(sched, master.address)
    driver.start()
    assert sched.told.wait(5)
    assert sched.errors == ["the callback for subscribed raised TypeError: oops"]
    assert driver.connected


# --- calls ----------------------------------------------------------------------------------------

FILTERS = {"refuse_seconds": 3600}


@pytest.mark.parametrize(
    ("call", "kind", "payload"),
    [
        (
            lambda d: d.acceptOffers(OFFER["id"], [{"type": "LAUNCH"}], FILTERS),
            "ACCEPT",
            {"offer_ids": [OFFER["id"]], "operations": [{"type": "LAUNCH"}], "filters": FILTERS},
        ),
        (
            lambda d: d.launchTasks([OFFER["id"]], [{"task_id": TASK_ID}]),
            "ACCEPT",
            {
                "offer_ids": [OFFER["id"]],
                "operations": [{"type": "LAUNCH", "launch": {"task_infos": [{"task_id": TASK_ID}]}}],
            },
        ),
        (lambda d: d.launchTasks(OFFER["id"], []), "DECLINE", {"offer_ids": [OFFER["id"]]}),
        (lambda d: d.declineOffer(OFFER["id"], FILTERS), "DECLINE", {"offer_ids": [OFFER["id"]], "filters": FILTERS}),
        (lambda d: d.acceptInverseOffers(OFFER["id"]), "ACCEPT_INVERSE_OFFERS", {"inverse_offer_ids": [OFFER["id"]]}),
        (
            lambda d: d.declineInverseOffer([OFFER["id"]], FILTERS),
            "DECLINE_INVERSE_OFFERS",
            {"inverse_offer_ids": [OFFER["id"]], "filters": FILTERS},
        ),
        (lambda d: d.reviveOffers(), "REVIVE", None),
        (lambda d: d.reviveOffers(["b", "a"]), "REVIVE", {"roles": ["a", "b"]}),
        (lambda d: d.suppressOffers(), "SUPPRESS", None),
        (lambda d: d.killTask(TASK_ID), "KILL", {"task_id": TASK_ID}),
        (lambda d: d.killTask(TASK_ID, agent_id=AGENT_ID), "KILL", {"task_id": TASK_ID, "agent_id": AGENT_ID}),
        (lambda d: d.reconcileTasks([]), "RECONCILE", {"tasks": []}),
        (
            lambda d: d.reconcileOperations([{"operation_id": {"value": "p"}, "agent_id": AGENT_ID, "x": 1}]),
            "RECONCILE_OPERATIONS",
            {"operations": [{"operation_id": {"value": "p"}, "agent_id": AGENT_ID}]},
        ),
        (
            lambda d: d.acknowledgeOperationStatusUpdate(
                {"operation_id": {"value": "p"}, "uuid": "u", "state": "OPERATION_FINISHED", "agent_id": AGENT_ID}
            ),
            "ACKNOWLEDGE_OPERATION_STATUS",
            {"operation_id": {"value": "p"}, "uuid": "u", "agent_id": AGENT_ID},
        ),
        (
            lambda d: d.sendFrameworkMessage(EXECUTOR_ID, AGENT_ID, "aGk="),
            "MESSAGE",
            {"executor_id": EXECUTOR_ID, "agent_id": AGENT_ID, "data": "aGk="},
        ),
        (lambda d: d.requestResources([{}]), "REQUEST", {"requests": [{}]}),
    ],
)
def test_calls(drivers: Drivers, call: Callable[[Any], None], kind: str, payload: Any) -> None:
    master = drivers.master()
    driver, _ = drivers.connected_scheduler(master, principal="me", secret="geheim ü")
    call(driver)
    seen = master.wait_call(kind)
    expected = {"type": kind, "framework_id": {"value": "framework-1"}}
    assert seen.body == (expected if payload is None else {**expected, kind.lower(): payload})
    assert seen.headers["mesos-stream-id"] == master.streams[0].id
    assert seen.headers["authorization"] == "Basic bWU6Z2VoZWltIMO8"
    assert seen.headers["content-type"] == seen.headers["accept"] == "application/json"


@pytest.mark.parametrize("status", [400, 403, 500, 503])
def test_refused_calls(drivers: Drivers, status: int) -> None:
    master = drivers.master()
    driver, _ = drivers.connected_scheduler(master)
    master.call_answers["KILL"].append(Answer(status, b"no such stream"))
    with pytest.raises(CallRefused, match=f"HTTP {status}: no such stream") as caught:
        driver.killTask(TASK_ID)
    assert caught.value.status == status
    driver.killTask(TASK_ID)
    assert driver.connected


def test_a_call_without_answer_is_not_repeated(drivers: Drivers) -> None:
    master = drivers.master()
    driver, _ = drivers.connected_scheduler(master)
    master.call_answers["ACCEPT"].append(Answer(0, drop=True))
    with pytest.raises(CallFailed, match=master.address):
        driver.acceptOffers(OFFER["id"], [{"type": "LAUNCH"}])
    assert kinds(master).count("ACCEPT") == 1, "launched twice, a task would be told lost while it runs"


def test_a_connection_that_was_closed_while_idle_is_not_used(drivers: Drivers) -> None:
    master = drivers.master()
    driver, _ = drivers.connected_scheduler(master)
    driver.killTask(TASK_ID)
    (idle,) = driver._calls._idle[master.address]
    calls_before = len(master._sockets)
    driver.killTask(TASK_ID)
    assert len(master._sockets) == calls_before, "an idle connection is used again"
    for sock in list(master._sockets):
        if sock.fileno() >= 0 and sock.getpeername() == idle.sock.getsockname():
            sock.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: idle.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"", 5, "not closed")
    driver.killTask(TASK_ID)
    assert kinds(master).count("KILL") == 3


def test_endless_redirection_of_a_call(drivers: Drivers) -> None:
    master = drivers.master()
    driver, _ = drivers.connected_scheduler(master)
    master.call_answers["KILL"].extend([Answer(307, headers={"Location": f"//{master.address}"})] * 100)
    with pytest.raises(CallFailed, match="redirected more than 3 times"):
        driver.killTask(TASK_ID)
    master.call_answers["REVIVE"].append(Answer(307, headers={"Location": "/elsewhere"}))
    with pytest.raises(CallFailed, match="redirected to nowhere"):
        driver.reviveOffers()


def test_no_secret_is_logged(drivers: Drivers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    master = drivers.master()
    master.subscribe_answers.append(Answer(503))
    driver, _ = drivers.connected_scheduler(master, principal="me", secret="tell-no-one")
    master.call_answers["KILL"].append(Answer(500))
    with pytest.raises(CallRefused) as caught:
        driver.killTask(TASK_ID)
    master.streams[0].close()
    master.wait_stream(2)
    assert caplog.records
    for secret in ("tell-no-one", "bWU6dGVsbC1uby1vbmU="):
        assert secret not in caplog.text
        assert secret not in str(caught.value)
