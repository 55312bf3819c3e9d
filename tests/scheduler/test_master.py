import http.server
import socket
import threading

import pytest

from scheduler import master
from scheduler.master import LocalMaster, RemoteMaster, address_towards, leading_master, parse_master
from scheduler.outcome import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local", LocalMaster(1)),
        ("local[1]", LocalMaster(1)),
        ("local[12]", LocalMaster(12)),
        ("10.0.0.1:5050", RemoteMaster("10.0.0.1:5050")),
        ("mesos", RemoteMaster("mesos:5050")),
        ("[::1]:5050", RemoteMaster("[::1]:5050")),
        ("zk://a:2181,b:2181/mesos", RemoteMaster("zk://a:2181,b:2181/mesos")),
    ],
)
def test_masters(text, expected):
    assert parse_master(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "local[0]", "local[x]", "local[-1]", "local[9999]", "local[2", "http://h:1", "h:port", "zk://h:2181", "a b"],
)
def test_what_is_no_master(text):
    with pytest.raises(UsageError) as error:
        parse_master(text)
    assert "local[N]" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_holds_the_master(tmp_path):
    """So that a ZooKeeper password need not be on the command line."""
    file = tmp_path / "master"
    file.write_text("zk://me:secret@a:2181/mesos\n")
    assert parse_master(f"file://{file}") == RemoteMaster("zk://me:secret@a:2181/mesos")
    for text, words in ((f"file://{file}", "another file"), ("zk://me:secret@a:2181", "zk://...@a:2181")):
        file.write_text(text)
        with pytest.raises(UsageError) as error:
            parse_master(f"file://{file}")
        assert words in str(error.value)
        assert "secret" not in str(error.value)
    with pytest.raises(UsageError, match="No such file"):
        parse_master(f"file://{tmp_path}/missing")


def test_nobody_listens():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(UsageError, match=f"no Mesos master at 127.0.0.1:{port}: Connection refused"):
        leading_master(RemoteMaster(f"127.0.0.1:{port}"))


def test_somebody_listens_and_says_nothing(monkeypatch):
    monkeypatch.setattr(master, "CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as sock, pytest.raises(UsageError, match="no answer within"):
        leading_master(RemoteMaster(f"127.0.0.1:{sock.getsockname()[1]}"))


def test_something_else_answers():
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(UsageError, match="is not a Mesos master"):
            leading_master(RemoteMaster(f"127.0.0.1:{server.server_port}"))
        thread.join()


def test_nobody_leads_in_zookeeper(monkeypatch):
    monkeypatch.setattr(master, "LEADER_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(UsageError, match=f"no Mesos master leads at zk://127.0.0.1:{port}/mesos"):
        leading_master(RemoteMaster(f"zk://127.0.0.1:{port}/mesos"))


def test_the_way_to_an_address():
    assert address_towards("127.0.0.1:5050") == "127.0.0.1"
