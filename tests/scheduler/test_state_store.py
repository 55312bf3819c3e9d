"""Stores of a job's state: whole changes, one driver, the newest."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scheduler import job_record
from scheduler.fencing import DriverRuns, Superseded
from scheduler.job_record import JobRecord
from scheduler.json_values import decode, encode
from scheduler.outcome import Outcome, UsageError
from scheduler.plan import JobPlan
from scheduler.resources import Need
from scheduler.state_store import StateError, job_states
from scheduler.state_store_sqlite import SqliteStates

from .harness import plan

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def states(tmp_path):
    return SqliteStates(tmp_path / "jobs")


def test_what_was_saved_is_loaded(states):
    store = states.store("one")
    store.create({"job": {"name": "one"}})
    store.save({"a": {"n": 1}, "b": {"n": 2}})
    store.save({"a": None, "b": {"n": 3}})
    assert store.load() == {"job": {"name": "one"}, "b": {"n": 3}}
    store.close()
    assert states.store("one").load() == {"job": {"name": "one"}, "b": {"n": 3}}
    assert states.ids() == ["one"]


def test_only_its_owner_can_read_it(states, tmp_path):
    store = states.store("one")
    store.create({"job": {"secret": "5e"}})
    store.save({"a": {}})
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "jobs" / "one").iterdir() if path.is_file()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "jobs" / "one").stat().st_mode) == 0o700


def test_a_change_is_made_whole_or_not_at_all(states):
    store = states.store("one")
    store.create({})
    store.save({"a": {"n": 1}, "b": {"n": 1}})
    with pytest.raises(TypeError):
        store.save({"a": {"n": 2}, "b": {"n": object()}})
    assert store.load() == {"a": {"n": 1}, "b": {"n": 1}}


def test_there_is_one_driver(states):
    first, second = states.store("one"), states.store("one")
    first.create({})
    with pytest.raises(DriverRuns, match=f"process {os.getpid()} on "):
        second.acquire()
    assert second.driver().lives
    first.close()
    assert not second.driver().lives
    assert second.acquire() == 2
    second.save({"a": {}})


def test_the_older_driver_is_fenced(states):
    older, newer = states.store("one"), states.store("one")
    older.create({"a": {"by": "older"}})
    assert newer.acquire(take_over=True) == 2
    newer.check()
    with pytest.raises(Superseded, match=f"process {os.getpid()} on "):
        older.save({"a": {"by": "older again"}})
    with pytest.raises(Superseded):
        older.check()
    older.close()
    newer.save({"b": {}})
    assert states.store("one").load() == {"a": {"by": "older"}, "b": {}}
    with pytest.raises(DriverRuns):
        states.store("one").acquire()


def test_of_many_who_want_to_drive_one_does(states):
    first = states.store("one")
    first.create({})
    first.close()
    stores = [states.store("one") for _ in range(8)]
    won, start = [], threading.Barrier(8)

    def contend(store):
        start.wait(10)
        try:
            won.append(store.acquire())
        except DriverRuns:
            pass

    threads = [threading.Thread(target=contend, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [2]
    for store in stores:
        store.close()


def test_a_killed_driver_holds_nothing(states, tmp_path):
    code = (
        "import sys, signal; from scheduler.state_store_sqlite import SqliteStates\n"
        f"store = SqliteStates(__import__('pathlib').Path({str(tmp_path / 'jobs')!r})).store('one')\n"
        "store.create({'a': {}}); print('created', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "created\n"
    store = states.store("one")
    assert store.driver().lives
    assert store.driver().holder.pid == process.pid
    assert not store.driver().holder.is_dead
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert store.driver().holder.is_dead
    assert store.acquire() == 2


def test_no_state(states, tmp_path):
    with pytest.raises(StateError, match="there is no"):
        states.store("none").load()
    with pytest.raises(StateError, match="there is no"):
        states.store("none").acquire()
    assert not (tmp_path / "jobs").exists(), "a look makes nothing"
    with pytest.raises(UsageError, match="is not a directory"):
        job_states(str(tmp_path / "no" / "such"))


def test_a_file_that_is_no_state(states, tmp_path):
    (tmp_path / "jobs" / "one").mkdir(parents=True)
    (tmp_path / "jobs" / "one" / "state.sqlite").write_text("something else, and long enough to be seen as such" * 9)
    with pytest.raises(StateError, match="not a database"):
        states.store("one").load()


def test_a_full_disk_is_told_and_can_be_overcome(states, tmp_path):
    store = states.store("one")
    store.create({"a": {"n": 1}})
    pages = store._connect().execute("PRAGMA page_count").fetchone()[0]
    store._connect().execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StateError, match="full"):
        store.save({"a": {"n": 2}, "b": {"long": "x" * 100_000}})
    assert store.load() == {"a": {"n": 1}}
    store._connect().execute(f"PRAGMA max_page_count = {pages + 1000}")
    store.save({"b": {"long": "x" * 100_000}})


def test_every_commit_is_synced(states):
    store = states.store("one")
    store.create({})
    assert store._connect().execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert store._connect().execute("PRAGMA journal_mode").fetchone() == ("truncate",)
    with pytest.raises(sqlite3.OperationalError):
        store._connect().execute("ROLLBACK")  # nothing is left open


def record(**changes):
    return JobRecord(plan(**changes), "127.0.0.1:5050", False, "127.0.0.1", 60000, 256, "logs", 1.5)


def test_a_job_survives_its_journey():
    whole = record(
        sources={"a.py": "print()"},
        worker_need=Need(2.5, 100, 3),
        task_environment={"A": "b"},
        spec=bytes(range(256)),
        resume=True,
    )
    changed = [name for name in vars(whole.plan) if getattr(whole.plan, name) != getattr(record().plan, name)]
    assert len(changed) == 5
    assert decode(JobRecord, encode(whole)) == whole


def test_json_of_another_version():
    older = encode(record())
    del older["plan"]["role"]
    older["plan"]["future"] = 1
    assert decode(JobRecord, older).plan == JobPlan(**vars(record().plan))
    with pytest.raises(ValueError, match="JobRecord"):
        decode(JobRecord, {"plan": 3})
    with pytest.raises(ValueError, match="int"):
        decode(JobRecord, encode(record()) | {"batch_size": "many"})
    with pytest.raises(TypeError):
        encode({"a": object()})


def test_of_an_ended_job_the_outcome_is_kept_and_no_secret(states, tmp_path):
    store = states.store("one")
    job_record.create(store, record(sources={"a.py": "text"}))
    store.save({"framework": {"id": "fw"}})
    outcome = Outcome(step=3, metrics={"Top1Accuracy": 0.5}, weights_sha256="ab")
    job_record.finish(store, outcome, framework_gone=False)
    assert job_record.load(store.load()).plan.secret == "5e", "needed to remove the framework"
    job_record.finish(store, outcome, framework_gone=True)
    records = store.load()
    assert job_record.finished(records).outcome == outcome
    assert job_record.load(records).plan.secret == ""
    assert set(records) == {"job", "finished"}


def test_old_jobs_are_forgotten(states):
    for number in range(5):
        store = states.store(f"job-{number}")
        job_record.create(store, record())
        if number != 1:
            job_record.finish(store, Outcome(), framework_gone=True)
        store.close()
    job_record.forget_old(states, keep=2)
    assert states.ids() == ["job-1", "job-3", "job-4"]
