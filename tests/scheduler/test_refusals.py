"""What the driver makes of refusals; tests/integration/test_access.py has them from a real master."""

import pytest

from scheduler import events as ev
from scheduler import refusals
from scheduler.master_questions import quota_limits
from tests.scheduler.harness import Harness, notes, plan, resources


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("the master at h:1 demands the secret of principal 'mesograd' (HTTP 401)", "--secret-file FILE"),
        ("Not authorized to register framework  with roles { ml }", "role 'ml'"),
        ("Role 'ml' is not present in the master's --roles", "its --roles"),
        ("the master at h:1 refused the framework: Mesos refused with HTTP 403: Forbidden", "--principal"),
    ],
)
def test_a_framework_that_is_not_taken(message, words):
    harness = Harness(role="ml")
    harness.send(ev.MesosError(message))
    assert words in harness.over.error
    assert harness.over.exit_code == 2


def test_other_errors_are_told_as_they_are():
    harness = Harness()
    harness.send(ev.MesosError("Framework has been removed"))
    assert harness.over.error == "the Mesos master has ended the framework: Framework has been removed"
    assert harness.over.exit_code == 1


def test_a_right_that_is_lost_while_tasks_run_is_no_mistake_of_usage():
    harness = Harness()
    harness.start()
    harness.send(ev.MesosError("Not authorized to register framework  with roles { * }"))
    assert harness.over.exit_code == 1


def test_a_task_that_is_not_allowed_is_not_tried_again():
    harness = Harness()
    harness.send(ev.Subscribed("fw"))
    harness.offer("a")
    harness.status("job.worker-0.1", "TASK_ERROR", reason="REASON_TASK_UNAUTHORIZED")
    assert "run tasks as user 'me'" in harness.framework.outcome.error


def test_a_quota_that_is_too_small():
    needed = plan().server_need.cpus + plan().worker_need.cpus + plan().executor_need.cpus
    assert refusals.quota(plan(), {"cpus": needed}) == ""
    assert refusals.quota(plan(), {}) == ""
    assert "is 1 cpus" in refusals.quota(plan(), {"cpus": 1.0})
    assert "is 100 MB" in refusals.quota(plan(), {"cpus": needed, "mem": 100.0})


def test_a_quota_that_others_have_used_up_is_named():
    harness = Harness(role="ml")
    harness.send(ev.Subscribed("fw"))
    harness.wait(17)
    said = notes(harness.send(ev.AgentTotals((resources(),), {"cpus": 8.0})))
    assert "no agent has so much free; role 'ml' may have 8 cpus in all (its quota)" in said


def test_quota_limits_as_the_master_shows_them():
    roles = [
        {"name": "a", "quota": {"limit": {"cpus": 8, "mem": 1000}}},
        {"name": "a/b", "quota": {"limit": {"cpus": 9, "mem": 500, "disk": 3}}},
        {"name": "a/b/c"},
        {"name": "other", "quota": {"limit": {"cpus": 1}}},
    ]
    assert quota_limits({"roles": roles}, "a/b/c") == {"cpus": 8, "mem": 500}
    assert quota_limits({"roles": roles}, "ab") == {}
    assert quota_limits(None, "a") == {}
