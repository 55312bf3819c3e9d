"""The driver's state machine against simulated clusters: `python -m benchmarks.framework [--agents N ...]`.

One process, one thread, no Mesos: agents make offers at the pace of a master, 1,000 a second of simulated time in
events of 100, tasks start and say hello, agents flap (their tasks become unreachable, the agent comes back empty).
What is measured is the CPU time of `Framework.handle`, by what the framework has to do with an offer:

- idle: all tasks run, it needs nothing; offers still come, as they do until a master has heard of SUPPRESS;
- flapping: agents come and go all the time, so that some tasks are always to be placed;
- hungry: it would take more workers than there is room for, so that every offer is looked at and found too small.

Memory is the peak resident size of the whole process, simulated agents included.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from dataclasses import dataclass, field

from proto import control_pb2 as pb
from scheduler import actions as act
from scheduler import events as ev
from scheduler.framework import PYTHON_VERSION, Framework
from scheduler.mesos_link import parse_offer
from scheduler.plan import JobPlan
from scheduler.resources import NOTHING, Need, Resources

OFFERS_PER_S = 1000  #: of simulated time
BATCH = 100  #: offers in one event, as a master sends those of one allocation
FLAPS_PER_S = 5
CPUS, MEM_MB = 4.0, 8192.0
TASK_CPUS = 1.0
KINDS = ("idle", "flapping", "hungry")


@dataclass
class Clock:
    """CPU time spent in the framework, and what it did."""

    seconds: float = 0.0
    offers: int = 0
    launches: int = 0
    declines: int = 0


@dataclass
class Cluster:
    """Agents with free resources, and the framework that uses them."""

    agents: int
    tasks: int
    seed: int = 1
    now: float = 0.0
    measured: Clock | None = None
    framework: Framework = field(init=False)

    def __post_init__(self) -> None:
        plan = JobPlan(
            job_id="benchmark", workers=self.tasks - 1, servers=1, control="192.0.2.1:1", secret="00", python="python3",
            spec=b"", worker_need=Need(TASK_CPUS, 1024),
        )  # fmt: skip
        self.framework = Framework(plan)
        self.random = random.Random(self.seed)
        self.total = Resources.parse(self.resources(CPUS, MEM_MB))
        self.free = {f"agent-{number}": self.total for number in range(self.agents)}
        self.names = list(self.free)
        self.taken: dict[str, tuple[str, Resources]] = {}  #: task id -> agent, resources
        self.executors: dict[str, tuple[str, Resources]] = {}
        self.running: list[str] = []
        self.down: list[str] = []
        self.count = 0
        self.send(ev.Subscribed("framework"))

    @staticmethod
    def resources(cpus: float, mem_mb: float) -> list[dict[str, object]]:
        traits = {"allocation_info": {"role": "*"}}
        ports = {"range": [{"begin": 31000, "end": 31099}]}
        return [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}, **traits},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": mem_mb}, **traits},
            {"name": "ports", "type": "RANGES", "ranges": ports, **traits},
        ]

    def send(self, event: ev.Event) -> None:
        """Gives the framework an event and the cluster its actions."""
        begun = time.thread_time()
        actions = self.framework.handle(event, self.now)
        if self.measured is not None:
            self.measured.seconds += time.thread_time() - begun
        for action in actions:
            self.obey(action)

    def obey(self, action: act.Action) -> None:
        if isinstance(action, act.Accept):
            if self.measured is not None:
                self.measured.launches += len(action.tasks)
            for task in action.tasks:
                task_id, executor = task["task_id"]["value"], task["executor"]
                if executor["executor_id"]["value"] not in self.executors:
                    used = Resources.parse(executor["resources"])
                    self.executors[executor["executor_id"]["value"]] = (action.agent_id, used)
                    self.free[action.agent_id] -= used
                used = Resources.parse(task["resources"])
                self.taken[task_id] = (action.agent_id, used)
                self.free[action.agent_id] -= used
                self.running.append(task_id)
        elif isinstance(action, act.Decline) and self.measured is not None:
            self.measured.declines += len(action.offer_ids)

    def json_offer(self, agent: str) -> dict[str, object]:
        """As the master sends it."""
        self.count += 1
        return {
            "id": {"value": f"offer-{self.count}"},
            "agent_id": {"value": agent},
            "framework_id": {"value": "framework"},
            "hostname": agent,
            "url": {"address": {"ip": "192.0.2.2", "hostname": agent, "port": 5051}},
            "resources": self.free[agent].to_mesos(),
        }

    def offer(self) -> None:
        """One event with offers of random agents; attaches what was launched."""
        agents = self.random.sample(self.names, min(BATCH, len(self.names)))
        offers = tuple(
            parse_offer(self.json_offer(agent))
            for agent in agents
            if self.free[agent] != NOTHING and agent not in self.down
        )
        if self.measured is not None:
            self.measured.offers += len(offers)
        self.send(ev.Offers(offers))
        self.now += BATCH / OFFERS_PER_S
        started, self.running = self.running, []
        for task_id in started:
            if task_id in self.taken:
                self.send(ev.StatusUpdate(task_id, "TASK_RUNNING", self.taken[task_id][0], raw={"uuid": "u"}))
                role = pb.SERVER if ".server-" in task_id else pb.WORKER
                hello = pb.Hello(task_id=task_id, role=role, address="h:1", host="h", pid=1)
                hello.python_version = PYTHON_VERSION
                self.send(ev.HelloReceived(hello))

    def flap(self) -> None:
        """An agent with tasks of the job goes down with all it has; one that is down comes back, as a new agent."""
        if self.down:
            back = self.down.pop(0)
            self.free[back] = self.total
        busy = self.random.choice(list(self.taken.values()))[0]
        self.down.append(busy)
        for task_id, (agent, _) in list(self.taken.items()):
            if agent == busy:
                del self.taken[task_id]
                self.send(ev.StreamLost(task_id))
                self.send(ev.StatusUpdate(task_id, "TASK_UNREACHABLE", agent, raw={"uuid": "u"}))
        for executor_id, (agent, _) in list(self.executors.items()):
            if agent == busy:
                del self.executors[executor_id]
                self.send(ev.ExecutorLost(executor_id, agent))
        self.send(ev.AgentLost(busy))

    def fill(self) -> None:
        """Until every slot has its task, or nothing more fits."""
        while sum(1 for _ in self.framework.job.slots.tasks()) < min(self.tasks, self.agents * 3):
            self.offer()
            self.send(ev.Tick())

    def measure(self, kind: str, offers: int) -> Clock:
        """CPU time of the framework for that many offers, ticks and updates included."""
        if kind == "hungry":
            self.send(ev.ScaleRequested(1, 10_000))
            self.free = dict.fromkeys(self.names, Resources.parse(self.resources(CPUS, 100)))  # nothing fits any more
        self.measured = Clock()
        next_flap = next_tick = self.now
        while self.measured.offers < offers:
            self.offer()
            while next_tick <= self.now:
                self.send(ev.Tick())
                next_tick += 0.25
            while kind == "flapping" and next_flap <= self.now:
                self.flap()
                next_flap += 1 / FLAPS_PER_S
        return self.measured


def main() -> None:
    """Prints a table and, with --json, one JSON object per line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--tasks", type=int, default=1_000, help="as many as fit where there are fewer agents")
    parser.add_argument("--offers", type=int, default=20_000, help="to measure for each figure")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    print(f"{'agents':>8} {'tasks':>6} {'kind':>9} {'offers/s':>10} {'us/offer':>9} {'launches':>9} {'peak MB':>8}")
    for agents in arguments.agents:
        tasks = min(arguments.tasks, agents * 3)
        for kind in KINDS:
            cluster = Cluster(agents, tasks)
            cluster.fill()
            clock = cluster.measure(kind, arguments.offers)
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            per_s = clock.offers / clock.seconds
            row = {"agents": agents, "tasks": tasks, "kind": kind, "offers_per_s": per_s, "peak_mb": peak_mb}
            if arguments.json:
                print(json.dumps(row), flush=True)
            micro_s = 1e6 * clock.seconds / clock.offers
            print(
                f"{agents:8} {tasks:6} {kind:>9} {per_s:10,.0f} {micro_s:9.1f} {clock.launches:9} {peak_mb:8.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
