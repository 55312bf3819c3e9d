"""TLS towards masters and agents; tests/mesos_api/defects.py has what works."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.mesos_tls import Tls, http_connection
from tests.mesos_api.defects import Drivers
from tests.mesos_api.fake_mesos import CERTIFICATE, FakeMesos
from tests.mesos_api.recorders import RecordingScheduler

ENABLED = {"LIBPROCESS_SSL_ENABLED": "true"}
TRUSTING = {**ENABLED, "LIBPROCESS_SSL_CA_FILE": str(CERTIFICATE)}


@pytest.fixture
def drivers() -> Iterator[Drivers]:
    with Drivers(original=False) as drivers:
        yield drivers


@pytest.fixture
def master(drivers: Drivers) -> FakeMesos:
    return drivers.master(tls=True)


def ask(address: str, environ: dict[str, str]) -> int:
    connection = http_connection(address, 5.0, Tls.of(environ))
    try:
        connection.request("GET", "/version")
        return connection.getresponse().status
    finally:
        connection.close()


def test_it_is_off_unless_asked_for(drivers: Drivers) -> None:
    assert Tls.of({}) is None
    assert Tls.of({"LIBPROCESS_SSL_ENABLED": "0", "LIBPROCESS_SSL_CA_FILE": "/nowhere"}) is None
    assert ask(drivers.master().address, {}) == 200


def test_who_is_trusted(master: FakeMesos) -> None:
    name, address = f"localhost:{master.port}", master.address
    assert ask(name, TRUSTING) == ask(address, TRUSTING) == 200
    for unknown in (name, address):
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(unknown, ENABLED)
    unchecked = {**ENABLED, "LIBPROCESS_SSL_VERIFY_SERVER_CERT": "false"}
    assert ask(name, unchecked) == ask(address, unchecked) == 200


def test_a_name_must_be_in_the_certificate(master: FakeMesos, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **by: resolve("127.0.0.1", *more, **by))
    with pytest.raises(ssl.SSLCertVerificationError, match="is not valid for 'elsewhere'"):
        ask(f"elsewhere:{master.port}", TRUSTING)


@pytest.mark.parametrize("trusting", [True, False])
def test_attempts_that_fail_are_told_and_tried_again(
    drivers: Drivers, monkeypatch: pytest.MonkeyPatch, trusting: bool
) -> None:
    """A certificate that is not trusted; a master that does not speak TLS at all."""
    master = drivers.master(tls=not trusting)
    for name, value in (TRUSTING if trusting else ENABLED).items():
        monkeypatch.setenv(name, value)
    sched = RecordingScheduler()
    drivers.scheduler(sched, master.address).start()
    (message,) = sched.wait("connectionFailed", 2)
    assert ("certificate verify failed" in message) is not trusting
    assert not sched.args_of("registered")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    for name in ("CA_FILE", "CERT_FILE"):
        for file in ("missing", "empty"):
            with pytest.raises(ValueError, match=rf"LIBPROCESS_SSL_\*: cannot use .*{file}"):
                Tls.of({**ENABLED, f"LIBPROCESS_SSL_{name}": str(tmp_path / file)})
