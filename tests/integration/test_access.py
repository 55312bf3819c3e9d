"""A master that authenticates frameworks, with ACLs and a quota: what it refuses is one line that names the remedy."""

import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.cluster import ClusterOptions, EmbeddedCluster
from scheduler.credentials import VARIABLE, principal_secret
from scheduler.outcome import UsageError
from tests.data_files import write_subset
from tests.integration.runs import LENET, WORK, Run, processes

pytestmark = pytest.mark.cluster

SECRET = "correct-horse-battery-staple"
OTHER = "another-principals-secret"
ACLS = {
    "register_frameworks": [
        {"principals": {"type": "ANY"}, "roles": {"values": ["*", "small"]}},
        {"principals": {"type": "ANY"}, "roles": {"type": "NONE"}},
    ],
    "run_tasks": [
        {"principals": {"values": ["guest"]}, "users": {"values": ["somebody"]}},
        {"principals": {"values": ["guest"]}, "users": {"type": "NONE"}},
    ],
}
QUOTA = {
    "type": "UPDATE_QUOTA",
    "update_quota": {"force": True, "quota_configs": [{"role": "small", "limits": {"cpus": {"value": 1.0}}}]},
}


def secret_file(path: Path, secret: str, mode: int = 0o600) -> str:
    path.write_text(secret + "\n")
    path.chmod(mode)
    return str(path)


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    WORK.joinpath("access").mkdir()
    credentials = WORK / "access" / "credentials"
    pairs = {"mesograd": SECRET, "guest": OTHER}
    entries = [{"principal": principal, "secret": secret} for principal, secret in pairs.items()]
    secret_file(credentials, json.dumps({"credentials": entries}))
    options = ClusterOptions(agents=1, credentials=credentials, master_flags={"acls": json.dumps(ACLS)})
    with EmbeddedCluster(WORK / "access" / "cluster", options=options) as running:
        connection = http.client.HTTPConnection(running.master, timeout=10)
        connection.request("POST", "/api/v1", json.dumps(QUOTA), {"Content-Type": "application/json"})
        assert connection.getresponse().status == http.client.OK
        connection.close()
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subset(tmp_path_factory.mktemp("data"), train=640, test=64)


def refused(cluster: EmbeddedCluster, folder: Path, *options: str, code: int = 2) -> str:
    """The one line that a run with these options says."""
    run = Run.start("--master", cluster.master, *options, LENET, "-f", str(folder), "-e", "1")
    assert run.finish() == code, run.output
    assert len(run.errors) == 1, run.output
    assert SECRET not in run.output
    assert OTHER not in run.output
    return run.errors[0]


def test_a_secret_is_demanded(cluster: EmbeddedCluster, folder: Path, tmp_path: Path) -> None:
    line = refused(cluster, folder)
    assert "demands the secret of principal 'mesograd'" in line
    assert "--secret-file FILE" in line
    assert VARIABLE in line
    line = refused(cluster, folder, "--secret-file", secret_file(tmp_path / "wrong", "wrong"))
    assert "does not accept the secret given for principal 'mesograd'" in line
    assert "--principal" in line
    line = refused(cluster, folder, "--principal", "guest", "--secret-file", secret_file(tmp_path / "right", SECRET))
    assert "does not accept the secret given for principal 'guest'" in line


def test_the_right_secret_and_nowhere_a_trace_of_it(
    cluster: EmbeddedCluster, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given by the environment, it is in no child, on no command line, in no file, in nothing that --verbose says."""
    monkeypatch.setenv(VARIABLE, SECRET)
    monkeypatch.setenv("MESOGRAD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MESOGRAD_MESOS", str(Path(os.environ.get("MESOGRAD_MESOS", Path.cwd() / ".cache" / "mesos"))))
    run = Run.start("--master", cluster.master, "-v", LENET, "-f", str(folder), "-e", "20")
    run.until("epoch 1 done")
    seen = [run.process.pid, *processes()]
    assert len(seen) >= 5  # driver, master, agent, executor, worker, server
    for pid in seen:
        assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        if pid != run.process.pid:
            assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert run.weights()
    assert SECRET not in run.output
    places = [cluster.directory, tmp_path / "home"]
    files = [path for place in places for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 10
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_a_role_that_is_not_allowed(cluster: EmbeddedCluster, folder: Path, tmp_path: Path) -> None:
    line = refused(cluster, folder, "--role", "vip", "--secret-file", secret_file(tmp_path / "s", SECRET))
    assert "role 'vip'" in line
    assert "register_frameworks" in line
    assert "--role" in line


def test_a_user_that_is_not_allowed(cluster: EmbeddedCluster, folder: Path, tmp_path: Path) -> None:
    options = ("--principal", "guest", "--user", "root", "--secret-file", secret_file(tmp_path / "s", OTHER))
    line = refused(cluster, folder, *options, code=1)
    assert "principal 'guest' run tasks as user 'root'" in line
    assert "run_tasks" in line
    assert "--user" in line


def test_a_quota_that_is_too_small(cluster: EmbeddedCluster, folder: Path, tmp_path: Path) -> None:
    line = refused(cluster, folder, "--role", "small", "--secret-file", secret_file(tmp_path / "s", SECRET), code=1)
    assert "the quota of role 'small' is 1 cpus" in line
    assert "--role" in line


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("fine", 0o644, "chmod 600"),
        ("", 0o600, "nothing else, on one line"),
        ("two\nlines", 0o600, "nothing else, on one line"),
    ],
)
def test_secret_files_that_are_none(tmp_path: Path, text: str, mode: int, words: str) -> None:
    path = secret_file(tmp_path / "secret", text, mode)
    with pytest.raises(UsageError, match=words) as caught:
        principal_secret(path, {})
    assert path in str(caught.value)
    assert "fine" not in str(caught.value)


def test_where_the_secret_is_looked_for(tmp_path: Path) -> None:
    environ = {VARIABLE: "from the environment", "PATH": "/bin"}
    path = secret_file(tmp_path / "secret", "from the file")
    assert principal_secret(path, dict(environ)) == "from the file"
    assert principal_secret(None, environ) == "from the environment"
    assert environ == {"PATH": "/bin"}
    assert principal_secret(None, environ) is None
    with pytest.raises(UsageError, match="No such file"):
        principal_secret(str(tmp_path / "missing"), {})
