"""The shell around the framework: one asyncio loop that takes events and carries out actions, in order.

Whatever has come together is handled as one batch: its progress is reported, its changes of the job's state are written
in one transaction, and only then is anything said to Mesos or to tasks. So what a driver does is known to the driver
that goes on in its place, and a disk that takes its time holds up nothing but this driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from scheduler import actions as act
from scheduler import events as ev
from scheduler import job_record, recovery, signals
from scheduler.control import ControlServer
from scheduler.fencing import Superseded
from scheduler.framework import Framework
from scheduler.json_values import Json
from scheduler.mesos_link import MesosLink
from scheduler.outcome import Outcome
from scheduler.phases import Phases
from scheduler.plan import JobPlan, Patience
from scheduler.report import Reporter
from scheduler.requests import framework_info
from scheduler.state_store import StateError, StateStore

TICK_S = 0.25
EMERGENCY_S = 5.0
BATCH = 1000  #: events handled before what they lead to is done
CHECK_S = 2.0  #: between two looks whether another driver has taken over
STATE_PATIENCE_S = 60.0  #: for the state to become writable again
STATE_RETRY_S = 1.0
CONTROL = "control"  #: record: where the last driver listened


def new_secret() -> str:
    """A job's secret, hex."""
    return secrets.token_hex(32)


@dataclass(frozen=True)
class Start:
    """What distinguishes a new job from one whose driver died."""

    saved: Mapping[str, Json]  #: records of the drivers before this one; empty for a new job
    events: Sequence[ev.Event] = ()  #: to be handled before all others


async def drive(
    plan: JobPlan,
    master: str,
    control_host: str,
    reporter: Reporter,
    store: StateStore,
    phases: Phases,
    patience: Patience | None = None,
    principal_secret: str | None = None,
    start: Start | None = None,
) -> Outcome:
    """Runs the job to its end, whatever that is. When it returns, framework, connections and threads are gone.

    Unless another driver has taken over (Outcome.superseded): then everything but this driver goes on.

    Args:
        plan: the job; its `control` is filled in here.
        master: "host:port" or "zk://...".
        control_host: address to listen on, which agents can reach.
        reporter: told of progress and faults.
        store: the job's state, whose driver this process is.
        phases: marked as the start proceeds.
        patience: time limits.
        principal_secret: for masters that authenticate frameworks.
        start: for jobs that run already.

    Raises:
        UsageError: cannot listen on `control_host`.
        StateError: the state could not be written for STATE_PATIENCE_S; tasks and framework wait for the next driver.
    """
    events: asyncio.Queue[ev.Event] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    start = start or Start({})

    def post(event: ev.Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is interested any more
            loop.call_soon_threadsafe(events.put_nowait, event)

    control = ControlServer(plan.secret, events.put_nowait)
    port = await control.start(control_host, int(start.saved.get(CONTROL, {}).get("port", 0)))
    plan = replace(plan, control=f"[{control_host}]:{port}" if ":" in control_host else f"{control_host}:{port}")
    framework = Framework(plan, patience, start.saved, time.monotonic())
    link = MesosLink(framework_info(plan, control_host, framework.job.framework_id), master, post, principal_secret)
    executor = _Executor(control, link, reporter, store, phases)
    helpers = [
        asyncio.create_task(_ticks(events.put_nowait)), asyncio.create_task(_checks(executor.state, events.put_nowait))
    ]  # fmt: skip
    leave = False
    try:
        await executor.state.save({CONTROL: {"port": port, "address": plan.control}}, reporter.note)
        link.start()
        for event in start.events:
            events.put_nowait(event)
        with signals.handled(loop, lambda number: events.put_nowait(ev.StopRequested(number))):
            while executor.outcome is None:
                batch = [await events.get()]
                while len(batch) < BATCH and not events.empty():
                    batch.append(events.get_nowait())
                now = time.monotonic()
                actions = [action for event in batch for action in framework.handle(event, now)]
                try:
                    await executor.carry_out(actions)
                except Superseded as error:
                    await executor.carry_out(framework.handle(ev.Superseded(str(error)), now))
        return executor.outcome
    except Superseded as error:
        leave = True
        await executor.carry_out(framework.handle(ev.Superseded(str(error)), time.monotonic()))
        assert executor.outcome is not None  # the framework is over at once
        return executor.outcome
    except StateError:
        leave = True
        raise
    finally:
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        if executor.outcome is None and not leave:  # an error of our own, or of the reporter
            gone = await _tear_down(link, events)
            with contextlib.suppress(StateError, Superseded):
                await asyncio.to_thread(job_record.finish, store, Outcome("the driver failed"), gone)
        await control.stop()
        await asyncio.to_thread(link.close)


class _State:
    """The job's state, one access at a time, in a thread: it may take long."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._lock = asyncio.Lock()

    async def save(self, changes: Mapping[str, Json | None], note: Callable[[str], None]) -> None:
        """Returns when they are safe. Raises StateError after STATE_PATIENCE_S, Superseded."""
        await self._repeat(lambda: self._store.save(changes), note)

    async def finish(self, outcome: Outcome, framework_gone: bool, note: Callable[[str], None]) -> None:
        await self._repeat(lambda: job_record.finish(self._store, outcome, framework_gone), note)

    async def check(self) -> None:
        """Raises Superseded, StateError."""
        async with self._lock:
            await asyncio.to_thread(self._store.check)

    async def _repeat(self, write: Callable[[], None], note: Callable[[str], None]) -> None:
        deadline, told = time.monotonic() + STATE_PATIENCE_S, False
        while True:
            try:
                async with self._lock:
                    await asyncio.to_thread(write)
                return
            except StateError as error:
                if time.monotonic() >= deadline:
                    raise
                if not told:
                    note(f"the job's state cannot be written ({error}); training goes on, launches wait")
                    told = True
            await asyncio.sleep(STATE_RETRY_S)


class _Executor:
    """Carries out actions. `outcome` is set by the last one."""

    def __init__(
        self, control: ControlServer, link: MesosLink, reporter: Reporter, store: StateStore, phases: Phases
    ) -> None:
        self.state = _State(store)
        self._control = control
        self._link = link
        self._reporter = reporter
        self._phases = phases
        self.outcome: Outcome | None = None

    async def carry_out(self, actions: Sequence[act.Action]) -> None:
        """Reports, then writes, then does the rest. Raises as `_State.save`."""
        changes: dict[str, Json | None] = {}
        rest: list[act.Action] = []
        for action in actions:
            match action:
                case act.Save():
                    changes.update(action.changes)
                case act.ReportProgress():
                    self._reporter.progress(action.progress)
                case act.Note():
                    self._reporter.note(action.text)
                case act.Mark():
                    self._phases.mark(action.phase)
                case _:
                    rest.append(action)
        if changes:
            if recovery.PROGRESS in changes or recovery.ENDING in changes:
                self._reporter.flush()
            await self.state.save(changes, self._reporter.note)
        for action in rest:
            match action:
                case act.Send():
                    self._control.send(action.task_id, action.message)
                case act.Refuse():
                    self._control.refuse(action.task_id, action.reason)
                case act.AnswerScale():
                    self._control.answer(action.request, action.text, action.accepted)
                case act.Over():
                    if not action.outcome.superseded:
                        await self.state.finish(action.outcome, action.framework_gone, self._reporter.note)
                    self.outcome = action.outcome
                case _:
                    self._link.submit(action)


async def _tear_down(link: MesosLink, events: asyncio.Queue[ev.Event]) -> bool:
    """Leaves no framework behind that holds resources for a week, if the master can be told within some seconds."""
    link.submit(act.Teardown())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(EMERGENCY_S):
            while not isinstance(await events.get(), ev.TornDown):
                pass
            return True
    return False


async def _ticks(post: Callable[[ev.Event], None]) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        post(ev.Tick())


async def _checks(state: _State, post: Callable[[ev.Event], None]) -> None:
    """Looks now and then whether this is still the job's driver, also while there is nothing to write."""
    while True:
        await asyncio.sleep(CHECK_S)
        try:
            await state.check()
        except Superseded as error:
            post(ev.Superseded(str(error)))
            return
        except StateError:
            continue  # who writes next will say so
