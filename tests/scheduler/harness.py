"""Drives the framework's state machine by hand and checks its invariants after every event."""

import base64
import json

from proto import control_pb2 as pb
from scheduler import actions as act
from scheduler import events as ev
from scheduler import recovery
from scheduler.framework import PYTHON_VERSION, Framework, Phase
from scheduler.placement import AgentOffer
from scheduler.plan import JobPlan, Patience
from scheduler.resources import NOTHING, Resources

ROLE = {"role": "*", "allocation_info": {"role": "*"}}


def resources(cpus=4.0, mem=4096.0, ports=((31000, 31099),)):
    items = [
        {"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}, **ROLE},
        {"name": "mem", "type": "SCALAR", "scalar": {"value": mem}, **ROLE},
        {"name": "disk", "type": "SCALAR", "scalar": {"value": 9999.0}, **ROLE},
    ]
    if ports:
        ranges = {"range": [{"begin": begin, "end": end} for begin, end in ports]}
        items.append({"name": "ports", "type": "RANGES", "ranges": ranges, **ROLE})
    return Resources.parse(items)


def plan(**changes):
    values = {
        "job_id": "job",
        "workers": 2,
        "servers": 1,
        "control": "127.0.0.1:1",
        "secret": "5e",
        "python": "/usr/bin/python3",
        "spec": b"spec",
        "user": "me",
    }
    return JobPlan(**{**values, **changes})


def hello(task_id, role=pb.WORKER, address="", version=PYTHON_VERSION):
    return ev.HelloReceived(
        pb.Hello(task_id=task_id, role=role, address=address, host="h", pid=1, python_version=version)
    )


def step(task_id, number, attempt=1, epoch=1):
    report = pb.StepReport(step=number, epoch=epoch, loss=1.0, samples=8, seconds=0.1, workers=1, attempt=attempt)
    return ev.ProgressReceived(task_id, pb.Progress(steps=[report]))


def task_data(task):
    return json.loads(base64.b64decode(task["data"]))


class Harness:
    """A framework, the time, and what the master would know."""

    def __init__(self, patience=None, **plan_changes):
        self.plan, self.patience = plan(**plan_changes), patience or Patience()
        self.framework = Framework(self.plan, self.patience)
        self.now = 100.0
        self.store = {}  # the records saved
        self.offered = {}  # offer id -> AgentOffer, until used or declined
        self.tasks = {}  # task id -> TaskInfo, all ever
        self.alive = {}  # slot name -> task id, until the framework may know it is gone
        self.executors = {}  # (agent, executor id) -> ExecutorInfo
        self.lost = set()  # ids of executors reported lost
        self.given_up = set()  # tasks given up by drivers that died
        self.over = None
        self.count = 0

    def send(self, event, after=0.0):
        """Actions of one event, `after` seconds later; invariants checked."""
        self.now += after
        if isinstance(event, ev.Offers):
            for offer in event.offers:
                for offer_id in offer.offer_ids:
                    assert offer_id not in self.offered
                    self.offered[offer_id] = offer
        if isinstance(event, ev.ExecutorLost):
            self.executors.pop((event.agent_id, event.executor_id), None)
            self.lost.add(event.executor_id)
        if isinstance(event, ev.StatusUpdate) and event.state in ev.TERMINAL_STATES:
            self.gone(event.task_id)
        assert self.over is None or not isinstance(event, ev.Offers), "nothing is handled once it is over"
        actions = self.framework.handle(event, self.now)
        if self.over is not None:
            assert actions == []
        assert not any(isinstance(action, act.Save) for action in actions[1:]), "it is written ahead of all else"
        for action in actions:
            assert self.over is None, f"{action} after Over"
            self.check(action)
        self.check_store()
        if self.over is None:
            assert not self.offered, "an offer was neither used nor declined"
        if isinstance(event, ev.StatusUpdate) and "uuid" in event.raw and self.over is None:
            acknowledged = [a for a in actions if isinstance(a, act.Acknowledge)]
            assert acknowledged == [act.Acknowledge(event.raw)], "each update is acknowledged once"
        return actions

    def crash(self, event, done, after=0.0):
        """The driver dies when it has carried out `done` of the actions of an event; another one goes on.

        Returns the actions that were carried out.
        """
        self.now += after
        if isinstance(event, ev.ExecutorLost):
            self.executors.pop((event.agent_id, event.executor_id), None)
        if isinstance(event, ev.StatusUpdate) and event.state in ev.TERMINAL_STATES:
            self.gone(event.task_id)
        if isinstance(event, ev.Offers):
            self.offered.update({offer_id: offer for offer in event.offers for offer_id in offer.offer_ids})
        live = {task.task_id for _, task in self.framework.job.slots.tasks()}
        self.given_up |= set(self.alive.values()) - live
        carried_out = self.framework.handle(event, self.now)[:done]
        for action in carried_out:
            self.check(action)
        self.offered.clear()  # they end with the subscription
        if self.over is None:
            self.framework = Framework(self.plan, self.patience, json.loads(json.dumps(self.store)), self.now)
        return carried_out

    def check_store(self):
        """What is stored is what a new driver needs to know of the present."""
        if self.over is None:
            present = recovery.snapshot(self.framework.job, self.framework.ending)
            unused = {"incarnation": 0, "failures": 0}
            kinds = [
                {key: record for key, record in records.items() if key != recovery.PROGRESS and record != unused}
                for records in (present, self.store)  # progress is written now and then only
            ]
            assert kinds[0] == kinds[1]

    def check(self, action):
        if isinstance(action, act.Save):
            for key, record in action.changes.items():
                assert self.store.get(key) != record, "written without need"
                if record is None:
                    del self.store[key]
                else:
                    self.store[key] = json.loads(json.dumps(record))
        elif isinstance(action, act.Decline):
            for offer_id in action.offer_ids:
                del self.offered[offer_id]
        elif isinstance(action, act.Accept):
            self.check_accept(action)
        elif isinstance(action, act.Over):
            self.over = action.outcome
            self.offered.clear()

    def check_accept(self, action):
        assert self.store["framework"]["id"], "launched before the FrameworkID was saved"
        offered = NOTHING
        for offer_id in action.offer_ids:
            offer = self.offered.pop(offer_id)
            assert offer.agent_id == action.agent_id
            offered = offered + Resources(offer.resources.scalars, offer.resources.ranges)
        used = NOTHING
        for task in action.tasks:
            task_id = task["task_id"]["value"]
            assert task["agent_id"]["value"] == action.agent_id
            assert task_id not in self.tasks, "a task id is used once"
            assert len(task_id) <= 255
            self.tasks[task_id] = task
            written = [record["task"]["task_id"] for record in self.store.values() if "task" in record]
            assert task_id in written, "launched before it was written down"
            slot = task["name"].rpartition(".")[0]
            find = self.framework.job.slots.find
            gone = slot not in self.alive or self.alive[slot] in self.given_up or find(self.alive[slot]) is None
            assert gone, f"two live tasks in {slot}"
            self.alive[slot] = task_id
            used = used + Resources.parse(task["resources"])
            executor = task["executor"]
            key = (action.agent_id, executor["executor_id"]["value"])
            assert key[1] not in self.lost, "a task for an executor that is known to be gone"
            if key not in self.executors:
                self.executors[key] = executor
                used = used + Resources.parse(executor["resources"])
            assert self.executors[key] == executor, "one executor id, one ExecutorInfo"
            data = task_data(task)
            ports = Resources.parse(task["resources"]).ports
            assert ("bind" in data) == (data["role"] == "server") == bool(ports)
        offered - used  # raises if more was used than offered

    def gone(self, task_id):
        for slot, alive in list(self.alive.items()):
            if alive == task_id:
                del self.alive[slot]

    # What often happens

    def offer(self, *agents, after=0.0, **sizes):
        """One offer from each agent."""
        offers = []
        for agent in agents:
            self.count += 1
            offers.append(AgentOffer(agent, f"host-{agent}", "10.0.0.1", (f"o{self.count}",), resources(**sizes)))
        return self.send(ev.Offers(tuple(offers)), after)

    def status(self, task_id, state, after=0.0, labels=None, **fields):
        self.count += 1
        agent = self.tasks[task_id]["agent_id"]["value"]
        raw = {"task_id": {"value": task_id}, "state": state, "uuid": f"u{self.count}"}
        if labels:
            raw["labels"] = {"labels": [{"key": key, "value": value} for key, value in labels.items()]}
        return self.send(ev.StatusUpdate(task_id, state, agent, raw=raw, **fields), after)

    def hello(self, task_id, **fields):
        data = task_data(self.tasks[task_id])
        role = pb.SERVER if data["role"] == "server" else pb.WORKER
        return self.send(hello(task_id, role, data.get("bind", ""), **fields))

    def start(self, *agents, **sizes):
        """Subscribed, all launched, running and attached. Returns the task ids by slot name."""
        self.send(ev.Subscribed("fw"))
        self.offer(*(agents or ("a", "b")), **sizes)
        for task_id in list(self.alive.values()):
            self.status(task_id, "TASK_RUNNING")
        for task_id in list(self.alive.values()):
            self.hello(task_id)
        return dict(self.alive)

    def tick(self, after=1.0):
        return self.send(ev.Tick(), after)

    def wait(self, seconds):
        """Ticks once a second; all actions on the way."""
        return [action for _ in range(int(seconds)) for action in self.tick()]

    @property
    def phase(self):
        return self.framework.phase


def of(actions, kind):
    return [action for action in actions if isinstance(action, kind)]


def sent(actions, body):
    """(task id, content) of the messages of one kind."""
    sends = [action for action in of(actions, act.Send) if action.message.WhichOneof("body") == body]
    return [(action.task_id, getattr(action.message, body)) for action in sends]


def notes(actions):
    return " | ".join(action.text for action in of(actions, act.Note))


__all__ = ["Harness", "Phase", "hello", "notes", "of", "plan", "resources", "sent", "step", "task_data"]
