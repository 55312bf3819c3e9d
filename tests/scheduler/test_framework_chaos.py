"""The framework against a small model of Mesos and of tasks, with random faults at random moments.

The driver dies too, amid the actions of any event, and another one goes on from what it has stored. Harness checks the
invariants after every event: a slot has at most one live task, a task id is used once, what is launched was written
down before. Whatever has happened: once the faults stop, the job gets all its tasks, ends, and the framework is torn
down.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proto import control_pb2 as pb
from scheduler import actions as act
from scheduler import events as ev
from scheduler.placement import AgentOffer
from scheduler.plan import Patience
from scheduler.resources import NOTHING, Resources

from .harness import Harness, Phase, hello, resources, step, task_data


class Cluster:
    """Agents with real free resources; tasks that run; calls that arrive."""

    def __init__(self, harness, agents):
        self.h = harness
        self.free = {f"agent-{i}": resources(cpus=3.0) for i in range(agents)}
        self.running = {}  # task id -> (agent, resources)
        self.executors = {}  # executor id -> (agent, resources)
        self.subscribed = False
        self.suppressed = False
        self.stopping = set()
        self.asked = []
        self.offers = 0

    def send(self, event, after=0.0):
        if self.h.over is None:
            for action in self.h.send(event, after):
                self.carry_out(action)

    def crash(self, event, done):
        """The driver dies amid the actions of an event, and is started again."""
        if self.h.over is None:
            for action in self.h.crash(event, done):
                self.carry_out(action)
            self.subscribed = self.suppressed = False

    def carry_out(self, action):
        if isinstance(action, act.Accept):
            for task in action.tasks:
                executor = task["executor"]["executor_id"]["value"]
                if executor not in self.executors:
                    used = Resources.parse(task["executor"]["resources"])
                    self.executors[executor] = (action.agent_id, used)
                    self.free[action.agent_id] -= used
                used = Resources.parse(task["resources"])
                self.free[action.agent_id] -= used
                self.running[task["task_id"]["value"]] = (action.agent_id, used)
        elif isinstance(action, act.Suppress):
            self.suppressed = True
        elif isinstance(action, act.Revive):
            self.suppressed = False
        elif isinstance(action, act.Reconcile):
            self.asked += [task_id for task_id, _ in action.tasks] or list(self.running)
        elif isinstance(action, act.Kill):
            self.stopping.add(action.task_id)
        elif isinstance(action, act.ShutdownExecutor):
            self.stopping.add(action.executor_id)
        elif isinstance(action, act.Send) and action.message.WhichOneof("body") == "stop":
            self.stopping.add(action.task_id)

    def end_task(self, task_id, state):
        agent, used = self.running.pop(task_id)
        self.free[agent] += used
        self.h.count += 1
        raw = {"uuid": f"u{self.h.count}"}
        self.send(ev.StatusUpdate(task_id, state, agent, "the end", raw=raw))

    def end_executor(self, executor_id):
        agent, used = self.executors.pop(executor_id)
        for task_id in list(self.running):
            if self.h.tasks[task_id]["executor"]["executor_id"]["value"] == executor_id:
                self.end_task(task_id, "TASK_FAILED")
        self.free[agent] += used
        self.send(ev.ExecutorLost(executor_id, agent))

    def offer_all(self):
        if not self.subscribed or self.suppressed or self.h.over is not None:
            return
        self.offers += 1
        self.send(ev.Offers(self.all_offers()))

    def all_offers(self):
        return tuple(
            AgentOffer(agent, agent, "10.0.0.1", (f"o{self.offers}-{agent}",), free)
            for agent, free in self.free.items()
            if free != NOTHING
        )

    def obey(self):
        """What was told to end, ends."""
        for name in list(self.stopping):
            if name in self.running:
                self.end_task(name, "TASK_KILLED")
            elif name in self.executors:
                self.end_executor(name)
        self.stopping.clear()

    def answer(self):
        """The master says what it knows of the tasks that it was asked about."""
        asked, self.asked = self.asked, []
        for task_id in asked:
            agent = self.h.tasks[task_id]["agent_id"]["value"] if task_id in self.h.tasks else ""
            self.send(ev.StatusUpdate(task_id, "TASK_RUNNING" if task_id in self.running else "TASK_GONE", agent))

    def attach(self, task_id):
        agent, _ = self.running[task_id]
        self.send(ev.StatusUpdate(task_id, "TASK_RUNNING", agent))
        if task_id in self.running and self.h.over is None:
            data = task_data(self.h.tasks[task_id])
            role = pb.SERVER if data["role"] == "server" else pb.WORKER
            self.send(hello(task_id, role, data.get("bind", "")))


class Chaos(RuleBasedStateMachine):
    @initialize(workers=st.integers(1, 3), servers=st.integers(1, 3), agents=st.integers(2, 4))
    def begin(self, workers, servers, agents):
        # Failures of the environment's making must not end the job here.
        self.h = Harness(Patience(failures=10**6), workers=workers, servers=servers)
        self.cluster = Cluster(self.h, agents)
        self.workers, self.most_servers = workers, servers
        self.step = 0

    @rule()
    def subscribe(self):
        if not self.cluster.subscribed:
            self.cluster.subscribed = True
            self.cluster.send(ev.Reregistered() if "framework" in self.h.store else ev.Subscribed("fw"))

    @rule()
    def disconnect(self):
        if self.cluster.subscribed:
            self.cluster.subscribed = False
            self.cluster.send(ev.Disconnected())

    @rule()
    def offer(self):
        self.cluster.offer_all()

    @rule(seconds=st.floats(0.1, 100))
    def tick(self, seconds):
        self.cluster.send(ev.Tick(), seconds)

    @precondition(lambda self: self.cluster.running)
    @rule(data=st.data())
    def attach(self, data):
        self.cluster.attach(data.draw(st.sampled_from(sorted(self.cluster.running))))

    @precondition(lambda self: self.cluster.running)
    @rule(data=st.data(), state=st.sampled_from(["TASK_FAILED", "TASK_GONE", "TASK_DROPPED", "TASK_KILLED"]))
    def task_dies(self, data, state):
        self.cluster.end_task(data.draw(st.sampled_from(sorted(self.cluster.running))), state)

    @precondition(lambda self: self.cluster.running)
    @rule(data=st.data(), state=st.sampled_from(["TASK_UNREACHABLE", "TASK_UNKNOWN", "TASK_RUNNING", "TASK_STARTING"]))
    def status(self, data, state):
        task_id = data.draw(st.sampled_from(sorted(self.cluster.running)))
        self.cluster.send(ev.StatusUpdate(task_id, state, self.cluster.running[task_id][0], raw={"uuid": "x"}))

    @precondition(lambda self: self.cluster.running)
    @rule(data=st.data())
    def stream_breaks(self, data):
        self.cluster.send(ev.StreamLost(data.draw(st.sampled_from(sorted(self.cluster.running)))))

    @precondition(lambda self: self.cluster.executors)
    @rule(data=st.data())
    def executor_dies(self, data):
        self.cluster.end_executor(data.draw(st.sampled_from(sorted(self.cluster.executors))))

    @rule()
    def answer(self):
        self.cluster.answer()

    @rule(done=st.integers(0, 6), kind=st.sampled_from(["tick", "offers", "status", "subscribed"]), data=st.data())
    def driver_dies(self, done, kind, data):
        """Amid anything; what it was told may be told again, what it was about to say is not said."""
        cluster, event = self.cluster, ev.Tick()
        if kind == "offers" and cluster.subscribed:
            cluster.offers += 1
            event = ev.Offers(cluster.all_offers())
        elif kind == "status" and cluster.subscribed and cluster.running:
            task_id = data.draw(st.sampled_from(sorted(cluster.running)))
            event = ev.StatusUpdate(task_id, "TASK_RUNNING", cluster.running[task_id][0], raw={"uuid": "x"})
        elif kind == "subscribed" and not cluster.subscribed:
            event = ev.Reregistered() if "framework" in self.h.store else ev.Subscribed("fw")
        cluster.crash(event, done)

    @rule()
    def obey(self):
        self.cluster.obey()

    @precondition(lambda self: self.h.framework.job.members.attempt)
    @rule()
    def progress(self):
        self.step += 1
        task_id = self.h.framework.job.members.servers[0][0]
        self.cluster.send(step(task_id, self.step, self.h.framework.job.members.attempt))

    @rule(servers=st.integers(1, 3))
    def scale_servers(self, servers):
        self.most_servers = max(self.most_servers, servers)
        self.cluster.send(ev.ScaleRequested(1, servers=servers))

    @precondition(lambda self: self.h.framework.job.members.attempt)
    @rule(late=st.booleans())
    def paused(self, late):
        """The lease book has stopped, or says so of an attempt that is over."""
        members = self.h.framework.job.members
        asked = self.h.framework.job.size.pausing
        if asked == members.attempt or late:
            self.cluster.send(ev.PausedReceived(members.servers[0][0], asked))

    @invariant()
    def members_and_slots_agree(self):
        if not hasattr(self, "h"):
            return
        job = self.h.framework.job
        assert not job.members.attempt or len(job.members.servers) == job.size.serving
        assert all(slot.open for slot in job.slots.of("server")[: max(job.size.servers, job.size.serving)])
        former = {task_id for task_id, _ in job.members.former}
        leaving = {task.task_id for _, task in job.slots.tasks() if task.leaving}
        assert not former & leaving, "its slice may be needed"

    @invariant()
    def slots_and_tasks_agree(self):
        if not hasattr(self, "h"):
            return
        live = [task.task_id for _, task in self.h.framework.job.slots.tasks()]
        assert len(live) == len(set(live)) <= self.workers + self.most_servers
        written = {record["task"]["task_id"] for record in self.h.store.values() if "task" in record}
        assert set(live) <= set(self.h.tasks) | written, "a driver may have died between writing and launching"

    def teardown(self):
        if not hasattr(self, "h") or self.h.over is not None:
            return
        self.subscribe()
        for _ in range(400):
            job = self.h.framework.job
            tasks = self.workers + job.size.servers
            settled = job.size.servers == job.size.serving and not job.members.former and not self.cluster.stopping
            if (
                settled and len(list(job.slots.tasks())) == tasks and len(job.slots.wants(1e12)) == 0
                and job.members.complete(job.slots.of("server"))
            ):  # fmt: skip
                break
            self.cluster.obey()
            self.cluster.answer()
            self.cluster.offer_all()
            for task_id in list(self.cluster.running):
                self.cluster.attach(task_id)
            self.cluster.send(ev.Tick(), 1.0)
            if self.h.framework.job.members.complete(self.h.framework.job.slots.of("server")):
                self.paused(False)
                self.progress()
        job = self.h.framework.job
        assert len(list(job.slots.tasks())) == self.workers + job.size.servers, "every slot is filled in the end"
        assert len(job.members.servers) == job.size.servers
        keeper = self.h.framework.job.members.servers[0][0]
        finished = pb.Finished(reason=pb.Finished.END_WHEN, step=9, weights_sha256="ab")
        self.cluster.send(ev.FinishedReceived(keeper, finished))
        for _ in range(60):
            self.cluster.obey()
            self.cluster.answer()
            self.cluster.send(ev.Tick(), 1.0)
            if self.h.phase is Phase.TEARING_DOWN:
                self.cluster.send(ev.TornDown())
        assert self.h.over is not None
        assert self.h.over.error == ""
        super().teardown()


Chaos.TestCase.settings = settings(
    max_examples=120, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
TestChaos = Chaos.TestCase
