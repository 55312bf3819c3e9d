"""A task that dies at a point of the protocol: run in the place of executor.task by test_server_faults.py.

`MESOGRAD_TEST_FAULTS` is JSON: a list of {"task": beginning of the task's id, "point": ..., "step": ..., "mark": file}.
At the first of its points that it comes to, in that step or a later one, the task writes its id into the file and kills
itself; a file that is there has had its fault. Every worker appends a line "step micro-batch pid" to the file
`MESOGRAD_TEST_COMPUTED` for each gradient that it computes. Workers do not join before two of them have got so far: a
quick one could do all steps alone, and nothing would be reduced.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from compute import checkpoint, storage
from compute.optim import ParameterUpdate
from executor import task
from executor.book_keeper import BookKeeper
from executor.data_path import ParameterOutbox
from executor.lease_computer import LeaseComputer
from executor.parameter_slice import ParameterSlice
from executor.reduction_tree import Partial
from executor.replica import Replica
from executor.replication import Replication
from executor.served_slice import ServedSlice
from executor.slice_handover import Gathering

FAULTS = json.loads(os.environ.get("MESOGRAD_TEST_FAULTS", "[]"))
COMPUTED = os.environ.get("MESOGRAD_TEST_COMPUTED", "")
READY_S = 60.0

Told = Callable[..., None]


def reached(point: str, step: int) -> None:
    """The task has come to a point: if a fault waits there, this was it."""
    for fault in FAULTS:
        if fault["point"] == point and fault["step"] <= step and sys.argv[1].startswith(fault["task"]):
            try:
                with open(fault["mark"], "x") as file:
                    file.write(sys.argv[1])
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)


def patch(owner: Any, name: str, before: Told | None = None, after: Told | None = None) -> None:
    """Has something told before and after each call, with its arguments."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args)
        result = original(*args, **kwargs)
        if after is not None:
            after(*args)
        return result

    setattr(owner, name, wrapped)


class Points:
    """Puts the points into the protocol. `step` is the one that a server is about."""

    def __init__(self) -> None:
        self.step = 0
        self._training = False
        patch(ParameterSlice, "push", self._pushing, lambda *_: reached("between pushes", self.step))
        patch(ParameterSlice, "apply", lambda held, *_: setattr(self, "step", held.version + 1))
        patch(Partial, "add", lambda *_: reached("reduction", self.step))
        patch(ParameterUpdate, "_update", after=lambda *_: reached("apply", self.step))
        patch(ParameterOutbox, "_send", lambda outbox, session, image: reached("pull", image.version))
        patch(ServedSlice, "committed", lambda server, order: reached("commit", order.step))
        patch(BookKeeper, "_commit", after=lambda keeper, step, _: reached("commit told", step))
        patch(ServedSlice, "holding", lambda held: reached("restart", held.promised))
        patch(Replica, "take_step", lambda _, message, payload: reached("replicate", message.step),
              lambda _, message, payload: reached("replicated", message.step))  # fmt: skip
        patch(Gathering, "result", lambda gathering: reached("gathered", 0))
        patch(Replica, "take_state", after=lambda replica, *_: reached("state", 0))
        patch(Replication, "_state", lambda _, held, bookmark: reached("catching up", held.version))
        patch(checkpoint, "write_manifest", lambda url, _: reached("manifest", step_of(url)))
        patch(LeaseComputer, "warm_up", after=self._ready)
        patch(LeaseComputer, "train", lambda *_: setattr(self, "_training", True))
        patch(LeaseComputer, "_leaf", self._computing)
        write = storage._write_local
        storage._write_local = lambda place, parts: write(place, halves(place, parts))

    def _pushing(self, held: ParameterSlice, step: int, *_: object) -> None:
        self.step = step
        reached("push", step)

    def _computing(self, computer: LeaseComputer, step: int, leaf: int, *_: object) -> None:
        if COMPUTED and self._training:  # else it warms up
            with open(COMPUTED, "a") as file:
                file.write(f"{step} {leaf} {os.getpid()}\n")

    def _ready(self, *_: object) -> None:
        if COMPUTED:
            computed = Path(COMPUTED)
            computed.with_name(f"ready-{os.getpid()}").touch()
            deadline = time.monotonic() + READY_S
            while len(list(computed.parent.glob("ready-*"))) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)


def step_of(place: str) -> int:
    found = re.search(r"step-(\d+)", place)
    return int(found[1]) if found else 0


def halves(place: str, parts: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """A file's content, with the point in its middle."""
    data = b"".join(parts)
    yield data[: len(data) // 2]
    reached("checkpoint", step_of(place))
    yield data[len(data) // 2 :]


if __name__ == "__main__":
    Points()
    task.main()
