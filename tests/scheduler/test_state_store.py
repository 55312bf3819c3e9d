"""Stores of a job's state: whole changes, one driver, the newest."""

import os
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from scheduler import job_record
from scheduler.fencing import DriverRuns, Superseded
from scheduler.job_record import JobRecord
from scheduler.job_states import job_states
from scheduler.json_values import decode, encode
from scheduler.outcome import Outcome, UsageError
from scheduler.plan import JobPlan
from scheduler.resources import Need
from scheduler.state_store import StateError
from scheduler.state_store_sqlite import SqliteStates
from scheduler.state_store_zookeeper import ZooKeeperStates
from tests.zookeeper import running_zookeeper

from .harness import plan

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def files(tmp_path):
    return SqliteStates(tmp_path / "jobs")


@pytest.fixture(scope="module")
def zookeeper(tmp_path_factory):
    """Address of a real ZooKeeper."""
    with running_zookeeper(tmp_path_factory.mktemp("zookeeper")) as address:
        yield address


@pytest.fixture(params=["files", "zookeeper"])
def states(request, tmp_path):
    if request.param == "files":
        yield SqliteStates(tmp_path / "jobs")
        return
    states = ZooKeeperStates(f"zk://me:pass@{request.getfixturevalue('zookeeper')}/{uuid.uuid4().hex}/jobs")
    yield states
    states.close()


def test_what_was_saved_is_loaded(states):
    store = states.store("one")
    store.create({"job": {"name": "one"}})
    store.save({"a": {"n": 1}, "b": {"n": 2}})
    store.save({"a": None, "b": {"n": 3}})
    assert store.load() == {"job": {"name": "one"}, "b": {"n": 3}}
    store.close()
    assert states.store("one").load() == {"job": {"name": "one"}, "b": {"n": 3}}
    assert states.ids() == ["one"]


def test_only_its_owner_can_read_it(files, tmp_path):
    store = files.store("one")
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


def driver_process(place, host):
    """A process that has created the job "one" and drives it."""
    code = (
        "import signal, socket, sys; socket.gethostname = lambda: sys.argv[2]\n"
        "from scheduler.job_states import job_states\n"
        "store = job_states(sys.argv[1]).store('one'); store.create({'a': {}})\n"
        "print('created', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, place, host], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "created\n"
    return process


@pytest.mark.parametrize("kind", ["files", "zookeeper"])
def test_a_killed_driver_holds_nothing(kind, tmp_path, request):
    place = str(tmp_path / "jobs")
    if kind == "zookeeper":
        place = f"zk://{request.getfixturevalue('zookeeper')}/{uuid.uuid4().hex}"
    process = driver_process(place, socket.gethostname())
    states = job_states(place)
    store = states.store("one")
    assert store.driver().lives
    assert store.driver().holder.pid == process.pid
    with pytest.raises(DriverRuns, match=str(process.pid)):
        store.acquire()
    process.kill()
    process.wait()
    process.stdout.close()
    assert not store.driver().lives
    assert store.acquire() == 2
    store.close()
    states.close()


def test_a_driver_killed_on_another_host_holds_its_lock_for_seconds(zookeeper):
    place = f"zk://{zookeeper}/{uuid.uuid4().hex}"
    process = driver_process(place, "elsewhere")
    states = job_states(place)
    process.kill()
    process.wait()
    process.stdout.close()
    store = states.store("one")
    assert store.driver().lives, "nobody here can know better"
    assert store.acquire() == 2  # once ZooKeeper has noticed
    store.close()
    states.close()


def test_large_records(states):
    store = states.store("one")
    store.create({"job": {"spec": "x" * 1_500_000}})
    store.save({"job": {"spec": "y" * 1_200_000}, "a": {}})
    assert store.load() == {"job": {"spec": "y" * 1_200_000}, "a": {}}
    store.save({"job": {"spec": "z"}})
    assert store.load() == {"job": {"spec": "z"}, "a": {}}
    store.close()


def test_zookeeper_shows_it_to_nobody_else(zookeeper):
    path = f"/{uuid.uuid4().hex}"
    states = ZooKeeperStates(f"zk://me:pass@{zookeeper}{path}")
    store = states.store("one")
    store.create({"job": {"secret": "5e"}})
    stranger = ZooKeeperStates(f"zk://{zookeeper}{path}")
    with pytest.raises(StateError, match="NoAuth"):
        stranger.store("one").load()
    with pytest.raises(StateError, match="NoAuth"):
        stranger.store("one").acquire(take_over=True)
    store.close()
    states.close()
    stranger.close()


def test_the_lock_outlives_a_session_of_zookeeper(zookeeper):
    states = ZooKeeperStates(f"zk://{zookeeper}/{uuid.uuid4().hex}")
    store = states.store("one")
    store.create({})
    states.client.delete(f"{store._path}/alive")  # as ZooKeeper does when it has not heard of a client for too long
    assert not store.driver().lives
    store.check()
    assert store.driver().lives
    store.close()
    states.close()


def test_no_zookeeper(monkeypatch):
    monkeypatch.setattr("scheduler.state_store_zookeeper.DEADLINE_S", 0.5)
    monkeypatch.setattr("scheduler.state_store_zookeeper.SESSION_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        states = ZooKeeperStates(f"zk://127.0.0.1:{mute.getsockname()[1]}/jobs")
        with pytest.raises(StateError, match="no ZooKeeper answers at zk://"):
            states.ids()
        states.close()
    with pytest.raises(UsageError, match="--state"):
        job_states("zk://nowhere")


def test_no_state(states, tmp_path):
    with pytest.raises(StateError, match="there is no "):
        states.store("none").load()
    with pytest.raises(StateError, match="there is no "):
        states.store("none").acquire()
    assert states.ids() == [], "a look makes nothing"
    with pytest.raises(UsageError, match="is not a directory"):
        job_states(str(tmp_path / "no" / "such"))


def test_a_file_that_is_no_state(files, tmp_path):
    (tmp_path / "jobs" / "one").mkdir(parents=True)
    (tmp_path / "jobs" / "one" / "state.sqlite").write_text("something else, and long enough to be seen as such" * 9)
    with pytest.raises(StateError, match="not a database"):
        files.store("one").load()


def test_a_full_disk_is_told_and_can_be_overcome(files, tmp_path):
    store = files.store("one")
    store.create({"a": {"n": 1}})
    pages = store._connect().execute("PRAGMA page_count").fetchone()[0]
    store._connect().execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StateError, match="full"):
        store.save({"a": {"n": 2}, "b": {"long": "x" * 100_000}})
    assert store.load() == {"a": {"n": 1}}
    store._connect().execute(f"PRAGMA max_page_count = {pages + 1000}")
    store.save({"b": {"long": "x" * 100_000}})


def test_every_commit_is_synced(files):
    store = files.store("one")
    store.create({})
    assert store._connect().execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert store._connect().execute("PRAGMA journal_mode").fetchone() == ("truncate",)
    with pytest.raises(sqlite3.OperationalError):
        store._connect().execute("ROLLBACK")  # nothing is left open


def record(**changes):
    return JobRecord(
        plan(**changes),
        master="127.0.0.1:5050",
        embedded=False,
        driver_host="127.0.0.1",
        samples_per_epoch=60000,
        batch_size=256,
        summary_directory="logs",
        begun_s=1.5,
    )


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


def test_of_an_ended_job_the_outcome_is_kept_and_no_secret(files, tmp_path):
    store = files.store("one")
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


def test_old_jobs_are_forgotten(files):
    for number in range(5):
        store = files.store(f"job-{number}")
        job_record.create(store, record())
        if number != 1:
            job_record.finish(store, Outcome(), framework_gone=True)
        store.close()
    job_record.forget_old(files, keep=2)
    assert files.ids() == ["job-1", "job-3", "job-4"]
