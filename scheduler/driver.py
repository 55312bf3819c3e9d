"""The shell around the framework: one asyncio loop that takes events and carries out actions, in order."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import replace

from scheduler import actions as act
from scheduler import events as ev
from scheduler import signals
from scheduler.control import ControlServer
from scheduler.control_file import ControlFile, ControlPoint
from scheduler.framework import Framework
from scheduler.framework_store import FrameworkStore
from scheduler.mesos_link import MesosLink
from scheduler.outcome import Outcome
from scheduler.phases import Phases
from scheduler.plan import JobPlan, Patience
from scheduler.report import Reporter
from scheduler.requests import framework_info

TICK_S = 0.25
EMERGENCY_S = 5.0


def new_secret() -> str:
    """A job's secret, hex."""
    return secrets.token_hex(32)


async def drive(
    plan: JobPlan,
    master: str,
    control_host: str,
    reporter: Reporter,
    store: FrameworkStore,
    phases: Phases,
    patience: Patience | None = None,
    principal_secret: str | None = None,
) -> Outcome:
    """Runs the job to its end, whatever that is. When it returns, framework, connections and threads are gone.

    Args:
        plan: the job; its `control` is filled in here.
        master: "host:port" or "zk://...".
        control_host: address to listen on, which agents can reach.
        reporter: told of progress and faults.
        store: where the FrameworkID is kept.
        phases: marked as the start proceeds.
        patience: time limits.
        principal_secret: for masters that authenticate frameworks.

    Raises:
        UsageError: cannot listen on `control_host`.
    """
    events: asyncio.Queue[ev.Event] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def post(event: ev.Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is interested any more
            loop.call_soon_threadsafe(events.put_nowait, event)

    control = ControlServer(plan.secret, events.put_nowait)
    port = await control.start(control_host)
    plan = replace(plan, control=f"[{control_host}]:{port}" if ":" in control_host else f"{control_host}:{port}")
    control_file = ControlFile(store.directory)
    control_file.save(ControlPoint(plan.control, plan.secret))
    link = MesosLink(framework_info(plan, control_host), master, post, principal_secret)
    executor = _Executor(control, link, reporter, store, phases)
    framework = Framework(plan, patience)
    ticks = asyncio.create_task(_ticks(events.put_nowait))
    try:
        link.start()
        with signals.handled(loop, lambda number: events.put_nowait(ev.StopRequested(number))):
            while executor.outcome is None:
                for action in framework.handle(await events.get(), time.monotonic()):
                    executor.carry_out(action)
        return executor.outcome
    finally:
        ticks.cancel()
        if executor.outcome is None:  # an error of our own, or of the reporter
            await _tear_down(link, events)
        control_file.remove()
        await control.stop()
        await asyncio.to_thread(link.close)


class _Executor:
    """Carries out actions. `outcome` is set by the last one."""

    def __init__(
        self, control: ControlServer, link: MesosLink, reporter: Reporter, store: FrameworkStore, phases: Phases
    ) -> None:
        self._control = control
        self._link = link
        self._reporter = reporter
        self._store = store
        self._phases = phases
        self.outcome: Outcome | None = None

    def carry_out(self, action: act.Action) -> None:
        match action:
            case act.SaveFrameworkId():
                self._store.save(action.framework_id)
            case act.Send():
                self._control.send(action.task_id, action.message)
            case act.Refuse():
                self._control.refuse(action.task_id, action.reason)
            case act.AnswerScale():
                self._control.answer(action.request, action.text, action.accepted)
            case act.ReportProgress():
                self._reporter.progress(action.progress)
            case act.Note():
                self._reporter.note(action.text)
            case act.Mark():
                self._phases.mark(action.phase)
            case act.Over():
                self._store.remove()
                self.outcome = action.outcome
            case _:
                self._link.submit(action)


async def _tear_down(link: MesosLink, events: asyncio.Queue[ev.Event]) -> None:
    """Leaves no framework behind that holds resources for a week, if the master can be told within some seconds."""
    link.submit(act.Teardown())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(EMERGENCY_S):
            while not isinstance(await events.get(), ev.TornDown):
                pass


async def _ticks(post: Callable[[ev.Event], None]) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        post(ev.Tick())
