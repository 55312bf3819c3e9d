"""One process of the benchmark: `python -m benchmarks.exchange.child`, its task as a JSON line on standard input.

Workers and servers are the project's own (executor.worker, executor.server); only the network's computing is left out.
The `raw` and `memcpy` processes move the same bytes in the plainest way that there is.
"""

import asyncio
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import compute
from benchmarks.compute.roofline import forward_flops, step_flops
from compute import data, models, nn, optim, trigger
from compute.data.source import Indices
from compute.engines.staged import gaps, joined
from compute.graph import build_graph
from compute.memory import aligned
from executor.job import LoadedJob
from executor.server import ParameterServer
from executor.step_plan import StepPlan
from executor.worker import Worker
from proto import control_pb2 as control
from scheduler.step_times import mean_seconds

SAMPLES = 1 << 20


class Blank(data.Source):
    """Samples of CIFAR-10's shape, all black."""

    def __len__(self) -> int:
        return SAMPLES

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (3, 32, 32)

    def read(self, indices: Indices) -> tuple[NDArray[np.uint8], Indices]:
        return np.zeros((len(indices), 3, 32, 32), dtype=np.uint8), np.zeros(len(indices), dtype=np.int64)


class NoNetwork:
    """Takes the place of a compiled program: has parameters and gradients, and computes nothing.

    Where it shall take time, it sleeps: in proportion to the floating-point operations of each layer's passes.
    """

    compute_s = 0.0

    def __init__(self, model: nn.Module, _criterion: Any, inputs: Any, **_: Any) -> None:
        graph = build_graph(model, inputs)
        self.parameters = aligned((graph.size,))
        self.gradients = aligned((graph.size,))
        self.gradients[:] = 1e-6
        total = step_flops(graph, 1)
        needed = graph.needs_gradient()
        self._layers = []
        for node in graph.nodes:
            forward = forward_flops(node) / total
            spans = [(p.offset, p.offset + p.size) for p in node.parameters if p.spec.kind == "weight"]
            backward = forward * (bool(spans) + any(needed[source] for source in node.sources))
            self._layers.append((forward, backward, joined(spans)))
        self._rest = gaps([(0, spans) for _, _, spans in self._layers], graph.size)

    def parameters_changed(self) -> None:
        """Nothing follows from parameters here."""

    def forward_backward(
        self, _x: Any, _target: Any, _scale: float, _key: Any, final: Callable[[int, int], None] | None = None,
        needed: Callable[[int, int], None] | None = None,
    ) -> float:  # fmt: skip
        """Asks for the parameters in the order of a forward pass, then says from the last to the first as a backward
        pass does that the gradients are there."""
        due = time.monotonic()
        for forward, _, spans in self._layers:
            if needed is not None:
                asked = time.monotonic()
                for span in spans:
                    needed(*span)
                due += time.monotonic() - asked
            due = self._take(due, forward)
        for _, backward, spans in reversed(self._layers):
            due = self._take(due, backward)
            for span in spans if final is not None else ():
                final(*span)
        for span in self._rest if final is not None else ():
            final(*span)
        return 1.0

    def _take(self, due: float, share: float) -> float:
        """Waits for a share of the time after `due`; when that was to end, so that it does not matter who is late."""
        due += share * self.compute_s
        if (left := due - time.monotonic()) > 0:
            time.sleep(left)
        return due


def zeros(model: nn.Module, inputs: Any, _seed: int) -> NDArray[np.float32]:
    """In place of initial parameters."""
    return np.zeros(sum(info.size for info in compute.parameter_layout(model, inputs)), dtype=np.float32)


def job_of(task: dict[str, Any]) -> LoadedJob:
    """VGG-16 for CIFAR-10; one micro-batch of one sample for each worker."""
    workers = int(task["workers"])
    leaves = 1 << (workers - 1).bit_length()
    spec = compute.TrainingSpec(
        models.vgg_cifar10(), nn.NLLLoss(), data.Dataset(Blank()) >> data.normalize(0.0, 1.0),
        optim.SGD(0.01, momentum=0.9), batch_size=leaves, end_when=trigger.max_iteration(int(task["steps"])),
        micro_batches=leaves, compression=task.get("compression", "none"),
        parameter_compression=task.get("parameter_compression", "none"),
    )  # fmt: skip
    return LoadedJob(control.Job(job_id="benchmark"), spec, StepPlan(SAMPLES, leaves, leaves))


async def serve(task: dict[str, Any], membership: control.Membership) -> None:
    """A parameter server; the first one prints a line for every step: its seconds, and the workers' in each phase."""
    over = asyncio.Event()
    setattr(compute, "initial_parameters", zeros)  # noqa: B010 - which take seconds to draw

    def tell(message: control.TaskMessage) -> None:
        for step in message.progress.steps:
            line = {"step": step.step, "seconds": step.seconds, "phases_s": mean_seconds(step.times.values())}
            print(json.dumps(line), flush=True)
        if message.HasField("finished"):
            over.set()

    server = ParameterServer(job_of(task), task["task_id"], "secret", tell)
    server.joined(membership)
    running = asyncio.create_task(server.run(task["bind"], task["bind_lanes"]))
    ended = asyncio.create_task(over.wait())
    await asyncio.wait([running, ended], return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    print(json.dumps({"finished": True}), flush=True)


async def work(task: dict[str, Any], membership: control.Membership) -> None:
    """A worker, until it is killed."""
    NoNetwork.compute_s = float(task.get("compute_s", 0.0))
    setattr(compute, "compile", NoNetwork)  # noqa: B010 - the lease computer shall compile nothing
    setattr(compute, "initial_parameters", zeros)  # noqa: B010 - nor spend seconds on random numbers
    worker = Worker(job_of(task), task["task_id"], "secret", 1)
    worker.joined(membership)
    await worker.run()


def _receive(connection: socket.socket, buffer: memoryview) -> None:
    done = 0
    while done < len(buffer):
        got = connection.recv_into(buffer[done:])
        if not got:
            raise ConnectionError("the other process has ended")
        done += got


def raw_server(task: dict[str, Any]) -> None:
    """Receives a slice from every worker; when all are there, sends it back to each."""
    workers, steps, size = int(task["workers"]), int(task["steps"]), int(task["bytes"])
    host, port = task["bind"].split(":")
    all_here = threading.Barrier(workers)
    with socket.create_server((host, int(port))) as listener:
        connections = [listener.accept()[0] for _ in range(workers)]

    def talk(connection: socket.socket) -> None:
        buffer = memoryview(np.ones(size, dtype=np.uint8).data)
        for _ in range(steps):
            _receive(connection, buffer)
            all_here.wait()
            connection.sendall(buffer)

    _together([lambda c=c: talk(c) for c in connections])  # type: ignore[misc]


def raw_worker(task: dict[str, Any]) -> None:
    """Sends each server its slice and receives it back; prints the seconds of every step."""
    size, steps, servers = int(task["bytes"]), int(task["steps"]), list(task["servers"])
    connections = [_connect(address) for address in servers]
    all_here = threading.Barrier(len(servers))
    begun = time.monotonic()

    def step_over() -> None:
        nonlocal begun
        now = time.monotonic()
        print(json.dumps({"step": 0, "seconds": now - begun}), flush=True)
        begun = now

    def talk(connection: socket.socket) -> None:
        buffer = memoryview(np.ones(size, dtype=np.uint8).data)
        for _ in range(steps):
            connection.sendall(buffer)
            _receive(connection, buffer)
            if all_here.wait() == 0:
                step_over()

    _together([lambda c=c: talk(c) for c in connections])  # type: ignore[misc]


def _connect(address: str) -> socket.socket:
    host, port = address.split(":")
    for _ in range(200):
        try:
            return socket.create_connection((host, int(port)), timeout=60)
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise ConnectionError(f"nobody listens on {address}")


def _together(calls: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def copy(task: dict[str, Any]) -> None:
    """Copies its share of a step's bytes again and again; prints the seconds of each."""
    size, steps = int(task["bytes"]), int(task["steps"])
    source, target = aligned((size,), np.uint8), aligned((size,), np.uint8)
    source[:] = target[:] = 1
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()  # all begin together
    for _ in range(steps):
        begun = time.monotonic()
        np.copyto(target, source)
        print(json.dumps({"step": 0, "seconds": time.monotonic() - begun}), flush=True)


def main() -> None:
    """The process."""
    logging.basicConfig(level=os.environ.get("MESOGRAD_LOG", "ERROR"))
    task = json.loads(sys.stdin.readline())
    servers = [
        control.Server(index=index, task_id=f"server-{index}", address=address)
        for index, address in enumerate(task.get("servers", ()))
    ]
    membership = control.Membership(attempt=1, servers=servers, workers=int(task.get("workers", 1)))
    match task["role"]:
        case "server":
            asyncio.run(serve(task, membership))
        case "worker":
            asyncio.run(work(task, membership))
        case "raw server":
            raw_server(task)
        case "raw worker":
            raw_worker(task)
        case "memcpy":
            copy(task)


if __name__ == "__main__":
    main()
