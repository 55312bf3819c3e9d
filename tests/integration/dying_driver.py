"""`mesograd` whose driver kills itself (SIGKILL) at a chosen moment: python dying_driver.py MOMENT run ..."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from proto.mesos import SchedulerDriver
from scheduler import actions as act
from scheduler import cli, mesos_link, recovery
from scheduler.control import ControlServer
from scheduler.ending import Ending
from scheduler.progress import LineProgress
from scheduler.state_store_sqlite import SqliteStore


def die(*args: Any, **kwargs: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, when: Callable[..., bool]) -> None:
    """Dies instead of calling owner.name, once `when` says so of its arguments."""
    original = getattr(owner, name)

    def replacement(self: Any, *args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs):
            die()
        return original(self, *args, **kwargs)

    setattr(owner, name, replacement)


def after(owner: Any, name: str, when: Callable[..., bool]) -> None:
    """Dies when such a call has returned."""
    original = getattr(owner, name)

    def replacement(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if when(*args, **kwargs):
            die()
        return result

    setattr(owner, name, replacement)


def always(*args: Any) -> bool:
    return True


def is_call(kind: type[act.Action]) -> Callable[..., bool]:
    return lambda action: isinstance(action, kind)


def in_a_moment(send: Any) -> None:
    """Dies when what was sent is on its way."""

    def replacement(self: Any, task_id: str, message: Any) -> None:
        send(self, task_id, message)
        if message.WhichOneof("body") == "stop":
            asyncio.get_running_loop().call_later(0.05, die)

    ControlServer.send = replacement  # type: ignore[method-assign]


MOMENTS: dict[str, Callable[[], None]] = {
    "before it subscribes": lambda: before(SchedulerDriver, "gen_request", always),
    "subscribed, and does not know it yet": lambda: before(mesos_link._Callbacks, "registered", always),
    "the FrameworkID is saved": lambda: after(SqliteStore, "save", lambda changes: recovery.FRAMEWORK in changes),
    "the launch is written, not sent": lambda: before(mesos_link.MesosLink, "submit", is_call(act.Accept)),
    "the launch is sent": lambda: after(mesos_link.MesosLink, "_call", is_call(act.Accept)),
    "the first task says hello": lambda: before(ControlServer, "send", always),
    "validating": lambda: before(LineProgress, "progress", lambda progress: len(progress.epochs) > 0),
    "finished, and has not written it": lambda: before(Ending, "finish", always),
    "closing tasks": lambda: in_a_moment(ControlServer.send),
    "closing executors": lambda: before(mesos_link.MesosLink, "submit", is_call(act.ShutdownExecutor)),
    "torn down": lambda: after(SchedulerDriver, "teardown", always),
    "told to stop": lambda: in_a_moment(ControlServer.send),
}

if __name__ == "__main__":
    MOMENTS[sys.argv.pop(1)]()
    cli.main()
