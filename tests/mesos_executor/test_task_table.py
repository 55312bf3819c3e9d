"""The executor's state machine: events in, actions out, no process and no clock."""

import itertools
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.task_table import (
    IDLE_S,
    Action,
    Event,
    Exited,
    Finish,
    Kill,
    KillSession,
    Launch,
    Report,
    Shutdown,
    StartChild,
    Started,
    StartFailed,
    TaskTable,
    Terminate,
    Tick,
)


def running(*task_ids: str, grace_s: float | None = None, reports_killing: bool = False) -> TaskTable:
    table = TaskTable(reports_killing)
    for task_id in task_ids:
        table.handle(Launch(task_id, grace_s=grace_s), 0.0)
        table.handle(Started(task_id), 0.0)
    return table


def test_from_launch_to_finish() -> None:
    table = TaskTable()
    assert table.handle(Launch("t", "request"), 0.0) == [Report("t", "TASK_STARTING"), StartChild("t", "request")]
    assert table.handle(Started("t"), 0.1) == [Report("t", "TASK_RUNNING")]
    assert table.next_deadline() is None
    assert table.handle(Exited("t", 0), 9.0) == [Report("t", "TASK_FINISHED", "exit code 0", {"exit_code": "0"})]
    assert len(table) == 0


def test_a_second_launch_of_a_task_is_none() -> None:
    assert running("t").handle(Launch("t"), 1.0) == []


def test_a_task_that_cannot_start() -> None:
    table = TaskTable()
    table.handle(Launch("t"), 0.0)
    assert table.handle(StartFailed("t", "no such file"), 0.0) == [
        Report("t", "TASK_FAILED", "could not be started: no such file")
    ]
    assert len(table) == 0


@pytest.mark.parametrize(
    ("exited", "message", "labels"),
    [
        (Exited("t", 1), "exit code 1", {"exit_code": "1"}),
        (Exited("t", 2, None, "Traceback\nValueError: x"), "exit code 2; last words:\nTraceback\nValueError: x", None),
        (Exited("t", None, signal.SIGSEGV), "ended by SIGSEGV", {"signal": "SIGSEGV"}),
        (Exited("t", None, 40), "ended by signal 40", {"signal": "signal 40"}),
    ],
)
def test_failures(exited: Exited, message: str, labels: dict[str, str] | None) -> None:
    (report,) = running("t").handle(exited, 1.0)
    assert isinstance(report, Report)
    assert (report.state, report.message) == ("TASK_FAILED", message)
    assert labels is None or report.labels == labels


def test_a_kill_that_is_obeyed() -> None:
    table = running("t", reports_killing=True)
    assert table.handle(Kill("t"), 10.0) == [Report("t", "TASK_KILLING", "killed on request"), Terminate("t")]
    assert table.next_deadline() == 15.0
    assert table.handle(Tick(), 14.9) == []
    assert table.handle(Exited("t", None, signal.SIGTERM), 12.0) == [
        Report("t", "TASK_KILLED", "killed on request: ended by SIGTERM", {"signal": "SIGTERM"})
    ]
    assert table.next_deadline() == 12.0 + IDLE_S


def test_a_kill_that_is_not_obeyed() -> None:
    table = running("t", grace_s=2.0)
    assert table.handle(Kill("t"), 10.0) == [Terminate("t")]
    assert table.handle(Tick(), 12.0) == [KillSession("t")]
    assert table.next_deadline() is None
    assert table.handle(Tick(), 13.0) == []
    (report,) = table.handle(Exited("t", None, signal.SIGKILL), 13.0)
    assert isinstance(report, Report)
    assert report.state == "TASK_KILLED"
    assert report.message == (
        "killed on request (SIGKILL, for SIGTERM did not end it within 2.0 s): ended by SIGKILL"
    )


def test_a_second_kill_moves_the_deadline() -> None:
    table = running("t")
    table.handle(Kill("t", 60.0), 10.0)
    assert table.next_deadline() == 70.0
    assert table.handle(Kill("t", 3.0), 11.0) == []
    assert table.next_deadline() == 13.0
    assert table.handle(Kill("t", 1.0), 12.0) == [KillSession("t")]
    assert table.handle(Kill("t", 60.0), 12.5) == [], "what is being killed stays so"


def test_no_grace_at_all() -> None:
    assert running("t").handle(Kill("t", 0.0), 1.0) == [Terminate("t"), KillSession("t")]


def test_an_exit_before_the_kill_arrives_is_told_as_it_was() -> None:
    table = running("t")
    table.handle(Exited("t", 0), 1.0)
    assert table.handle(Kill("t"), 1.1) == []
    assert table.handle(Exited("t", 0), 1.2) == []


def test_shutdown() -> None:
    table = running("a", "b", "c", grace_s=60.0)
    table.handle(Kill("c", 0.5), 9.0)
    assert table.handle(Shutdown(3.0, "shut down"), 9.2) == [Terminate("a"), Terminate("b")]
    assert table.next_deadline() == 9.5, "a shutdown does not prolong a life"
    assert table.handle(Tick(), 9.5) == [KillSession("c")]
    assert table.next_deadline() == pytest.approx(12.2)
    table.handle(Exited("c", None, signal.SIGKILL), 9.6)
    assert table.handle(Launch("late"), 10.0) == [Report("late", "TASK_KILLED", "the executor is shutting down")]
    killed = Report("a", "TASK_KILLED", "shut down: exit code 0", {"exit_code": "0"})
    assert table.handle(Exited("a", 0), 10.0) == [killed]
    assert table.handle(Tick(), 12.3) == [KillSession("b")]
    assert table.handle(Exited("b", None, signal.SIGKILL), 12.4)[-1] == Finish()
    assert Finish() not in table.handle(Shutdown(3.0), 13.0)


def test_shutdown_shortens_a_long_grace_period() -> None:
    table = running("t")
    table.handle(Kill("t", 100.0), 10.0)
    table.handle(Shutdown(3.0), 20.0)
    assert table.next_deadline() == 23.0


def test_shutdown_of_an_idle_executor() -> None:
    assert TaskTable().handle(Shutdown(3.0), 0.0) == [Finish()]


TERMINAL = ("TASK_FINISHED", "TASK_FAILED", "TASK_KILLED")
TASK_IDS = st.sampled_from("abc")
GRACES = st.none() | st.floats(0, 10)
EVENTS = st.one_of(
    st.builds(Launch, TASK_IDS, st.none(), GRACES),
    st.builds(Kill, TASK_IDS, GRACES),
    st.builds(Exited, TASK_IDS, st.integers(0, 3)),
    st.builds(Exited, TASK_IDS, st.none(), st.sampled_from([9, 11, 15])),
    st.builds(Shutdown, st.floats(0, 5)),
    st.just(Tick()),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 3)), max_size=60), st.sets(TASK_IDS))
def test_whatever_happens(script: list[tuple[Event, float]], cannot_start: set[str]) -> None:
    """One terminal report per launch, children only signalled while they live, SIGKILL only after SIGTERM."""
    table, now, alive, finished = TaskTable(), 0.0, set(), 0
    reports: dict[str, list[str]] = {}
    asked: dict[str, float] = {}

    def carry_out(actions: list[Action]) -> None:
        nonlocal finished
        for action in actions:
            match action:
                case Report(task_id, state):
                    reports.setdefault(task_id, []).append(state)
                case StartChild(task_id):
                    asked.pop(task_id, None)
                    if task_id in cannot_start:
                        carry_out(table.handle(StartFailed(task_id, "no"), now))
                    else:
                        alive.add(task_id)
                        carry_out(table.handle(Started(task_id), now))
                case Terminate(task_id):
                    assert task_id in alive
                    asked[task_id] = now
                case KillSession(task_id):
                    assert task_id in alive
                    assert task_id in asked
                case Finish():
                    finished += 1
                    assert not alive

    for event, passes_s in script:
        now += passes_s
        if isinstance(event, Exited):
            if event.task_id not in alive:
                continue
            alive.discard(event.task_id)
        carry_out(table.handle(event, now))
        carry_out(table.handle(Tick(), now))
        assert len(table) == len(alive)
        assert table.next_deadline() is None or table.next_deadline() > now  # type: ignore[operator]
    for states in reports.values():
        for before, after in itertools.pairwise(states):
            if before in TERMINAL:  # the next life begins; in a shutdown it ends at once
                assert after in ("TASK_STARTING", "TASK_KILLED"), f"{after} after {before}"
            else:
                assert after != "TASK_STARTING", f"{after} after {before}"
    assert finished <= 1
