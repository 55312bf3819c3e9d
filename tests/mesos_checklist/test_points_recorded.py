"""Points of the checklist (docs/mesos.md) that show in what passes between driver and master in one eventful job."""

import itertools
import re
from typing import Any

import pytest

from scheduler.plan import Patience
from scheduler.resources import Resources
from tests.mesos_checklist.recorded import MASTER_AT, ROLE, STEPS, Recording

pytestmark = pytest.mark.cluster

WEEK_S = 7 * 24 * 3600
FAULTS = {
    "a launch was lost",
    "a launch came late",
    "an acknowledgement was lost",
    "a worker was killed",
    "the master was restarted",
}


def infos(recording: Recording) -> list[dict[str, Any]]:
    """The FrameworkInfo of each SUBSCRIBE."""
    return [dict(call.payload["framework_info"]) for call in recording.proxy.of("SUBSCRIBE")]


def capabilities(recording: Recording) -> set[str]:
    (kinds,) = {tuple(c["type"] for c in info["capabilities"]) for info in infos(recording)}
    return set(kinds)


def ids(tasks: Any) -> list[str]:
    return [task["task_id"]["value"] for task in tasks]


def reconciled(recording: Recording) -> list[tuple[float, list[dict[str, Any]]]]:
    """(time, tasks) of each RECONCILE."""
    return [(call.time, call.payload["tasks"]) for call in recording.proxy.of("RECONCILE")]


def test_the_job_met_all_its_faults_and_ended_well(recording: Recording) -> None:
    assert set(recording.fired) == FAULTS
    assert recording.outcome.error == ""
    assert recording.watcher.steps[-1] == (1, STEPS)
    assert recording.left == []
    assert recording.proxy.errors == []
    assert recording.proxy.refusals == []


def test_the_jobs_secret_is_in_no_file(recording: Recording) -> None:
    """Neither in sandboxes and logs nor in what agents and masters write down, nor in the FrameworkInfo."""
    assert recording.with_secret == []
    assert recording.plan.secret not in str(infos(recording))


def test_point_01_framework_id(recording: Recording) -> None:
    """On disk before the first launch, and in both places of every later SUBSCRIBE."""
    given = recording.proxy.events_of("SUBSCRIBED")[0].body["subscribed"]["framework_id"]
    assert given["value"] in recording.saved[0]
    first, *later = recording.proxy.of("SUBSCRIBE")
    assert "framework_id" not in first.body
    assert "id" not in first.payload["framework_info"]
    assert later
    for call in later:
        assert call.body["framework_id"] == call.payload["framework_info"]["id"] == given


def test_point_02_failover_timeout(recording: Recording) -> None:
    assert {info["failover_timeout"] for info in infos(recording)} == {WEEK_S}


def test_point_03_checkpoint(recording: Recording) -> None:
    """Said from the first SUBSCRIBE on; it, user and principal never change."""
    fixed = {(info["checkpoint"], info["user"], info["principal"]) for info in infos(recording)}
    assert len(fixed) == 1
    assert fixed.pop()[0] is True


def test_point_04_launches_are_written_first(recording: Recording) -> None:
    """When an ACCEPT is sent, each of its tasks is in the job's state on disk, with agent and executor."""
    accepts = recording.proxy.of("ACCEPT")
    assert len(recording.saved) == len(accepts)
    for saved, call in zip(recording.saved, accepts, strict=True):
        for task in call.payload["operations"][0]["launch"]["task_infos"]:
            assert task["task_id"]["value"] in saved
            assert task["agent_id"]["value"] in saved
            assert task["executor"]["executor_id"]["value"] in saved


def test_point_06_subscription_on_its_own_connection(recording: Recording) -> None:
    """Nothing else on the connection of a SUBSCRIBE, which bears no stream id; every call bears its subscription's."""
    calls = [call for call in recording.proxy.calls if call.kind]
    subscriptions = {call.connection for call in calls if call.kind == "SUBSCRIBE"}
    streams: set[str] = set()
    for call in calls:
        if call.kind == "SUBSCRIBE":
            assert "mesos-stream-id" not in call.headers
        else:
            assert call.connection not in subscriptions
            streams.add(call.headers["mesos-stream-id"])
    assert len(streams) == len(recording.proxy.events_of("SUBSCRIBED")) == 2


def test_point_09_a_launch_answered_with_202_is_not_done(recording: Recording) -> None:
    """The lost ACCEPT was answered with 202: its tasks are asked for, and launched anew under other ids."""
    lost, *later = recording.proxy.of("ACCEPT")
    tasks = ids(lost.payload["operations"][0]["launch"]["task_infos"])
    assert lost in recording.proxy.swallowed
    asked = [set(ids(wanted)) for at, wanted in reconciled(recording) if at > lost.time and wanted]
    assert asked[0] == set(tasks)
    assert later
    assert {f"{task_id.rpartition('.')[0]}.2" for task_id in tasks} <= set(ids(recording.launched()))


def test_point_11_multi_role(recording: Recording) -> None:
    """`roles`, not `role`; every resource that is used says for which role it was offered."""
    assert "MULTI_ROLE" in capabilities(recording)
    for info in infos(recording):
        assert info["roles"] == [ROLE]
        assert "role" not in info
    for task in recording.launched():
        for resource in task["resources"] + task["executor"]["resources"]:
            assert resource["allocation_info"] == {"role": ROLE}


def test_point_12_reservations(recording: Recording) -> None:
    """What is reserved for the role is used first, with its reservation repeated to the letter."""
    assert "RESERVATION_REFINEMENT" in capabilities(recording)
    task = recording.launched()[0]
    (cpus,) = (resource for resource in task["resources"] if resource["name"] == "cpus")
    assert [(r["type"], r["role"]) for r in cpus["reservations"]] == [("STATIC", ROLE)]


def test_point_14_task_killing(recording: Recording) -> None:
    assert "TASK_KILLING_STATE" in capabilities(recording)


def test_point_15_no_gpus(recording: Recording) -> None:
    assert "GPU_RESOURCES" not in capabilities(recording)


def test_point_17_suppress_when_idle(recording: Recording) -> None:
    """Suppressed once all is placed; revived for what was lost, not in loops."""
    kinds = [c.kind for c in recording.proxy.calls if c.kind in ("ACCEPT", "SUPPRESS", "REVIVE")]
    assert kinds[:2] == ["ACCEPT", "SUPPRESS"]
    assert kinds[-1] == "SUPPRESS"
    again = [task for task in recording.launched() if not task["name"].endswith(".1")]
    assert 2 <= kinds.count("REVIVE") <= len(again)


def test_point_18_no_offer_is_held(recording: Recording) -> None:
    """Each is used or declined at once; what is not needed for an hour."""
    answered: dict[str, float] = {}
    for call in recording.proxy.calls:
        if call.kind in ("ACCEPT", "DECLINE"):
            answered |= {offer["value"]: call.time for offer in call.payload["offer_ids"]}
    held_up = list(recording.proxy.of("ACCEPT"))[1]  # by the proxy, and with it what came meanwhile
    for event in recording.proxy.events_of("OFFERS"):
        for offer in event.body["offers"]["offers"]:
            at = answered[offer["id"]["value"]]
            assert at - event.time < 1.0 or held_up.time < event.time < held_up.time + 3.5
    patience = Patience()
    times = {call.payload["filters"]["refuse_seconds"] for call in recording.proxy.of("DECLINE")}
    assert times <= {patience.refuse_idle_s, patience.refuse_small_s}
    assert patience.refuse_idle_s == 3600


def test_point_20_rescinded_offers(recording: Recording) -> None:
    """An offer that was rescinded while its ACCEPT was on the way: the tasks are dropped, and launched anew."""
    late = recording.proxy.of("ACCEPT")[1]
    offer = late.payload["offer_ids"][0]
    rescinded = [event.body["rescind"]["offer_id"] for event in recording.proxy.events_of("RESCIND")]
    assert offer in rescinded
    tasks = set(ids(late.payload["operations"][0]["launch"]["task_infos"]))
    dropped = {u["task_id"]["value"] for u in recording.updates() if u.get("reason") == "REASON_INVALID_OFFERS"}
    assert dropped == tasks
    assert recording.outcome.error == ""


def test_point_21_explicit_reconciliation(recording: Recording) -> None:
    """After the new registration every task is asked for, with its agent, until it was answered; with back-off."""
    subscribed = recording.proxy.events_of("SUBSCRIBED")[1].time
    ended = recording.proxy.of("SHUTDOWN")[0].time
    asked = [(at, tasks) for at, tasks in reconciled(recording) if subscribed < at < ended and tasks]
    assert len(asked[0][1]) == 3
    assert all(task["agent_id"]["value"] for _, tasks in asked for task in tasks)
    answered: dict[str, float] = {}
    for event in recording.proxy.events_of("UPDATE"):
        if event.time > subscribed:
            answered.setdefault(event.body["update"]["status"]["task_id"]["value"], event.time)
    for (before, _), (after, tasks) in itertools.pairwise(asked):
        assert after - before >= 0.8  # one request in flight
        assert {task_id for task_id in ids(tasks) if answered[task_id] < after - 0.3} == set()
    assert set(answered) >= set(ids(asked[0][1]))


def test_point_22_implicit_reconciliation(recording: Recording) -> None:
    assert Patience().reconcile_all_s == 15 * 60
    everything = [at for at, tasks in reconciled(recording) if not tasks]
    gaps = [after - before for before, after in itertools.pairwise(everything)]
    assert len(everything) >= 3
    assert all(gap > 0.5 for gap in gaps)


def test_point_23_acknowledgements(recording: Recording) -> None:
    """Updates with a uuid, once each time they come; the one whose acknowledgement was lost came again."""
    wanted = [update["uuid"] for update in recording.updates() if "uuid" in update]
    given = [call.payload["uuid"] for call in recording.proxy.of("ACKNOWLEDGE")]
    assert sorted(wanted) == sorted(given)
    (lost,) = (call.payload["uuid"] for call in recording.proxy.swallowed if call.kind == "ACKNOWLEDGE")
    assert given.count(lost) >= 2
    assert any("uuid" not in update for update in recording.updates())  # answers to reconciliation
    first = {update["uuid"]: event for event, update in _updates_with_uuid(recording)}
    for call in recording.proxy.of("ACKNOWLEDGE"):
        assert call.time >= first[call.payload["uuid"]]


def _updates_with_uuid(recording: Recording) -> list[tuple[float, dict[str, Any]]]:
    found = [(event.time, event.body["update"]["status"]) for event in recording.proxy.events_of("UPDATE")]
    return [(at, update) for at, update in reversed(found) if "uuid" in update]


def test_point_24_fresh_ids(recording: Recording) -> None:
    launched = recording.launched()
    task_ids = ids(launched)
    assert len(task_ids) >= 3 + 3 + 1
    assert len(set(task_ids)) == len(task_ids)
    executors = {task["executor"]["executor_id"]["value"] for task in launched}
    assert len(executors) >= 2  # of the launch that was lost, and of the one that worked
    assert all(re.fullmatch(r"[\w.-]{1,255}", value) for value in [*task_ids, *executors])


def test_point_27_kill_policy_and_shutdown(recording: Recording) -> None:
    """Every task has a grace period; at the end executors are shut down by the call for it."""
    assert {task["kill_policy"]["grace_period"]["nanoseconds"] for task in recording.launched()} == {1_500_000_000}
    shut = [call.payload["executor_id"]["value"] for call in recording.proxy.of("SHUTDOWN")]
    assert shut[0] == recording.launched()[-1]["executor"]["executor_id"]["value"]


def test_point_28_executors_are_paid_for(recording: Recording) -> None:
    """An executor has 0.01 cpus and 32 MB at the least, and fits into the offer with its tasks."""
    offered = {
        offer["id"]["value"]: Resources.parse(offer["resources"])
        for event in recording.proxy.events_of("OFFERS")
        for offer in event.body["offers"]["offers"]
    }
    paid: set[str] = set()
    for call in recording.proxy.of("ACCEPT"):
        left = Resources.parse([])
        for offer in call.payload["offer_ids"]:
            left = left + offered[offer["value"]]
        for task in call.payload["operations"][0]["launch"]["task_infos"]:
            left = left - Resources.parse(task["resources"])  # raises if there is not so much
            executor = task["executor"]
            sizes = {r["name"]: r["scalar"]["value"] for r in executor["resources"] if "scalar" in r}
            assert sizes["cpus"] >= 0.01
            assert sizes["mem"] >= 32
            if executor["executor_id"]["value"] not in paid:
                paid.add(executor["executor_id"]["value"])
                left = left - Resources.parse(executor["resources"])


def test_point_29_principal_and_few_calls(recording: Recording) -> None:
    """A principal, by which operators limit rates; one call for all tasks of an agent, one for all declined offers."""
    assert {info["principal"] for info in infos(recording)} == {recording.plan.principal}
    sizes = [len(call.payload["operations"][0]["launch"]["task_infos"]) for call in recording.proxy.of("ACCEPT")]
    assert sizes[0] == 3


def test_point_30_labels_and_discovery(recording: Recording) -> None:
    """Job and role as labels; a server's port, by name, is one of those that were offered."""
    for info in infos(recording):
        assert {"key": "mesograd.job", "value": recording.plan.job_id} in info["labels"]["labels"]
        assert "webui_url" not in info  # there is no page to point at
    for task in recording.launched():
        labels = {label["key"]: label["value"] for label in task["labels"]["labels"]}
        assert labels == {"mesograd.job": recording.plan.job_id, "mesograd.role": task["name"].split("-")[0]}
        if labels["mesograd.role"] == "server":
            (port,) = task["discovery"]["ports"]["ports"]
            (ports,) = (r for r in task["resources"] if r["name"] == "ports")
            assert port["name"] == "server"
            assert any(span["begin"] <= port["number"] <= span["end"] for span in ports["ranges"]["range"])


def test_point_31_no_messages(recording: Recording) -> None:
    """Control state travels on channels of our own; Mesos' MESSAGE is not used at all."""
    assert recording.proxy.of("MESSAGE") == []
    assert recording.proxy.events_of("MESSAGE") == []


def test_point_32_teardown_at_the_end_only(recording: Recording) -> None:
    calls = [call.kind for call in recording.proxy.calls if call.kind]
    assert calls.index("TEARDOWN") == len(calls) - 1
    assert recording.proxy.of("TEARDOWN")[0].time > recording.master_at
    assert MASTER_AT < STEPS
