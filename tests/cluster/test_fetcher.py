"""mesos-fetcher: alone with its MESOS_FETCHER_INFO, and run by an agent for a task whose command has URIs."""

import gzip
import http.server
import io
import json
import os
import stat
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.cluster import EmbeddedCluster
from scheduler.cluster_binaries import find_mesos
from tests.cluster.framework import Framework
from tests.cluster.waiting import wait_until

pytestmark = pytest.mark.cluster


class Handler(http.server.BaseHTTPRequestHandler):
    """/hello.txt, /packed.tar.gz; /short breaks off; everything else is missing."""

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/hello.txt":
            self.answer(b"hello over http\n")
        elif path == "/packed.tar.gz":
            self.answer(tar_bytes({"inner/file.txt": b"packed\n"}))
        elif path == "/short":
            self.answer(b"abc", length=10)
        else:
            self.send_error(http.HTTPStatus.NOT_FOUND)

    def answer(self, body: bytes, length: int | None = None) -> None:
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """A web server; its URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


def tar_bytes(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    directory = tmp_path / "sandbox"
    directory.mkdir()
    return directory


def fetch(sandbox: Path, *uris: dict[str, Any], **more: Any) -> subprocess.CompletedProcess[str]:
    """Runs the fetcher; `uris` with the keys action and cache_filename besides those of a URI."""
    items = []
    for uri in uris:
        item = {"uri": {key: value for key, value in uri.items() if key not in ("action", "cache_filename")}}
        items.append({"action": "BYPASS_CACHE", **item, **{key: uri[key] for key in uri if key not in item["uri"]}})
    info = {"sandbox_directory": str(sandbox), "items": items, **more}
    environment = {"PATH": os.environ["PATH"], "MESOS_FETCHER_INFO": json.dumps(info)}
    program = str(find_mesos() / "bin" / "mesos-fetcher")
    return subprocess.run([program], env=environment, capture_output=True, text=True, timeout=20)


def test_local_files(sandbox: Path, tmp_path: Path) -> None:
    source = tmp_path / "with space.sh"
    source.write_text("echo\n")
    done = fetch(
        sandbox,
        {"value": str(source)},
        {"value": f"file://{tmp_path}/with%20space.sh", "output_file": "a/b/second.sh", "executable": True},
        {"value": "with space.sh", "output_file": "third.sh"},
        frameworks_home=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert (sandbox / "with space.sh").read_text() == "echo\n"
    assert stat.S_IMODE((sandbox / "a/b/second.sh").stat().st_mode) == 0o755
    assert (sandbox / "third.sh").read_text() == "echo\n"


def test_http(sandbox: Path, server: str) -> None:
    done = fetch(sandbox, {"value": f"{server}/hello.txt?token=1"}, {"value": f"{server}/packed.tar.gz"})
    assert done.returncode == 0, done.stderr
    assert (sandbox / "hello.txt").read_text() == "hello over http\n"
    assert (sandbox / "inner" / "file.txt").read_text() == "packed\n"


def test_archives(sandbox: Path, tmp_path: Path) -> None:
    (tmp_path / "run.tgz").write_bytes(tar_bytes({"bin/run": b"#!/bin/sh\n"}, mode=0o755))
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as pack:
        member = zipfile.ZipInfo("tools/tool")
        member.external_attr = 0o755 << 16
        pack.writestr(member, "#!/bin/sh\n")
    (tmp_path / "numbers.gz").write_bytes(gzip.compress(b"1 2 3\n"))
    (tmp_path / "kept.tar").write_bytes(b"not extracted, so not looked at")
    done = fetch(
        sandbox,
        *({"value": str(tmp_path / name)} for name in ("run.tgz", "pack.zip", "numbers.gz")),
        {"value": str(tmp_path / "kept.tar"), "extract": False},
    )
    assert done.returncode == 0, done.stderr
    assert os.access(sandbox / "bin" / "run", os.X_OK)
    assert os.access(sandbox / "tools" / "tool", os.X_OK)
    assert (sandbox / "numbers").read_text() == "1 2 3\n"
    assert (sandbox / "kept.tar").is_file()


def test_the_cache(sandbox: Path, tmp_path: Path, server: str) -> None:
    cache = str(tmp_path / "cache")
    item = {"value": f"{server}/packed.tar.gz", "cache_filename": "c1"}
    first = fetch(sandbox, {**item, "action": "DOWNLOAD_AND_CACHE"}, cache_directory=cache)
    assert first.returncode == 0, first.stderr
    assert sorted(path.name for path in sandbox.iterdir()) == ["inner"]
    gone = {**item, "value": f"{server}/gone.tar.gz", "output_file": "second.tar.gz", "extract": False}
    second = fetch(sandbox, {**gone, "action": "RETRIEVE_FROM_CACHE"}, cache_directory=cache)
    assert second.returncode == 0, second.stderr
    assert (sandbox / "second.tar.gz").read_bytes() == (tmp_path / "cache" / "c1").read_bytes()


@pytest.mark.parametrize("archive", ["tar.gz", "zip"])
def test_an_archive_does_not_reach_out_of_the_sandbox(sandbox: Path, tmp_path: Path, archive: str) -> None:
    path = tmp_path / f"evil.{archive}"
    if archive == "zip":
        with zipfile.ZipFile(path, "w") as pack:
            pack.writestr("../outside", "evil")
    else:
        path.write_bytes(tar_bytes({"../outside": b"evil"}))
    fetch(sandbox, {"value": str(path)})
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ({"value": "/no/such/file"}, "No such file or directory"),
        ({"value": "/usr"}, "is a directory"),
        ({"value": "SERVER/missing"}, "HTTP status 404"),
        ({"value": "SERVER/short"}, "the connection ended after 3 of 10 bytes"),
        ({"value": "http://127.0.0.1:1/nobody"}, "Connection refused"),
        ({"value": "hdfs://name/file"}, "hdfs: URIs are not in this build"),
        ({"value": "relative/file"}, "--frameworks_home"),
        ({"value": "SERVER/"}, "give an output_file"),
        ({"value": "SERVER/hello.txt", "output_file": "../out"}, "no file name below the sandbox"),
        ({"value": "SERVER/hello.txt", "output_file": "no.tar.gz"}, "tar cannot extract it"),
        ({"value": "SERVER/hello.txt", "output_file": "no.zip"}, "not a zip archive"),
        ({"value": "SERVER/hello.txt", "output_file": "no.gz"}, "not a gzip file"),
    ],
)
def test_failures_are_one_line(sandbox: Path, server: str, uri: dict[str, str], message: str) -> None:
    value = uri["value"].replace("SERVER", server)
    done = fetch(sandbox, {**uri, "value": value})
    assert done.returncode == 1
    assert done.stderr.startswith(f"mesos-fetcher: cannot fetch {value}: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_task_gets_its_uris(cluster: EmbeddedCluster, tmp_path: Path, server: str) -> None:
    script = tmp_path / "script.sh"
    script.write_text('cat hello.txt inner/file.txt > "$1"\n')
    result = tmp_path / "result"
    uris: list[dict[str, Any]] = [
        {"value": str(script), "executable": True, "cache": True},
        {"value": f"{server}/hello.txt"},
        {"value": f"{server}/packed.tar.gz", "extract": True},
    ]
    with Framework(cluster.master) as framework:
        framework.launch(f"./script.sh {result}.new && mv {result}.new {result}; sleep 1006", uris)
        wait_until(result.exists, "the task has read its URIs")
    assert result.read_text() == "hello over http\npacked\n"


def test_a_task_whose_uri_is_missing_fails_and_the_agent_stays(cluster: EmbeddedCluster, server: str) -> None:
    """To cache it, the agent asks libcurl for its size; there is none in this build, and the agent must bear it."""
    with Framework(cluster.master) as framework:
        framework.launch("sleep 1007", [{"value": f"{server}/missing", "cache": True}])
        status = framework.next("UPDATE")["update"]["status"]
        assert status["state"] == "TASK_FAILED"
        assert "Failed to fetch all URIs" in status["message"]
    sandboxes = cluster.directory.glob("agent-*/work/slaves/*/frameworks/*/executors/*/runs/latest")
    assert ["HTTP status 404" in (sandbox / "stderr").read_text() for sandbox in sandboxes] == [True]
    assert all(cluster.pid(name) for name in cluster.names)
