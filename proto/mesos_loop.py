"""The thread that keeps one subscription alive: connect, subscribe, read events, and again after any failure.

It takes the place of the loop in pymesos.process, whose failures tear the framework down.
"""

import contextlib
import errno
import http.client
import logging
import os
import selectors
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from proto.backoff import Backoff
from proto.mesos_address import parse_address
from proto.mesos_errors import CallRefused, MesosError, NotConnected, Redirected, StreamFailed
from proto.mesos_http import CallConnections, EventStream, Json, keep_alive, peer_address
from proto.mesos_tls import Tls

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 20.0  # from the SUBSCRIBE call to its first event


class _Interrupted(Exception):
    """The driver was stopped, or another master took over, while the loop was waiting."""


@dataclass(frozen=True)
class Session:
    """A subscription that is alive.

    Attributes:
        address: "ip:port" of the daemon that holds it; calls go there.
        stream_id: to be sent with every call.
    """

    address: str
    stream_id: str

    def headers(self, authorization: str | None) -> dict[str, str]:
        """Headers of a call within this subscription."""
        headers = {"Mesos-Stream-Id": self.stream_id} if self.stream_id else {}
        if authorization is not None:
            headers["Authorization"] = authorization
        return headers


class SubscriptionLoop:
    """Base of both drivers; comes before pymesos' Process in the method resolution order.

    All callbacks are made by its thread, one at a time. What a callback raises is reported by `_report_callback`
    and changes nothing else.
    """

    path = ""  # of the API, set by the subclass

    def _init_loop(self, backoff: Backoff, call_timeout_s: float, tls: Tls | None = None) -> None:
        self._lock = threading.RLock()  # guards the attributes below; never held during a network call
        self._session: Session | None = None
        self._started = False
        self._master: str | None = None  # "host:port" that the loop is working with
        self._new_master: str | None = None  # "host:port" that it should work with; None: nobody leads
        self._master_version = 0  # grows when `_new_master` changes, which interrupts whatever the loop is waiting for
        self._redirected_to: str | None = None  # the leader, as a master that does not lead told
        self._ending = False  # Mesos was asked to end the subscription: that it does so is no failure
        self._subscribed_at: float | None = None
        self._io_thread: threading.Thread | None = None
        self._wakeup: tuple[socket.socket, socket.socket] | None = None  # (read, write)
        self._backoff = backoff
        self._tls = tls
        self._calls = CallConnections(call_timeout_s, tls)
        self.last_error: str | None = None

    # --- what the subclass says ----------------------------------------------------------------------------------

    def gen_request(self) -> bytes:
        """The SUBSCRIBE call."""
        raise NotImplementedError

    def on_event(self, event: Json) -> None:
        """Makes the callbacks of one event."""
        raise NotImplementedError

    def on_close(self) -> None:
        """A subscription that was alive has ended."""
        raise NotImplementedError

    def _silence_limit_s(self) -> float | None:
        """Seconds without a byte after which a subscription counts as dead; None: never."""
        return None

    def _on_wakeup(self, session: Session) -> None:
        """Something was queued while the subscription is alive; runs in the loop's thread."""

    def _on_attempt_failed(self, message: str, delay_s: float) -> None:
        """An attempt failed; the next one follows after `delay_s` seconds. Runs in the loop's thread."""

    def _on_refused(self, error: CallRefused) -> None:
        """The subscription was refused for good."""
        raise NotImplementedError

    def _report_callback(self, name: str, error: Exception) -> None:
        """A callback raised."""
        raise NotImplementedError

    # --- for every thread ----------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether there is a subscription now."""
        return self._session is not None

    @property
    def stream_id(self) -> str | None:
        """Of the subscription, if there is one now."""
        session = self._session
        return session.stream_id if session is not None else None

    @property
    def master(self) -> str | None:
        """ "host:port" of the daemon being worked with."""
        return self._master

    def start(self) -> None:
        """Starts the thread; does nothing if it runs.

        Raises:
            RuntimeError: if a callback calls it after stop().
        """
        with self._lock:
            if self._started:
                return
        if not self.join():  # a thread that was stopped may still be closing its connections
            raise RuntimeError("a callback cannot start its own driver again")
        with self._lock:
            self._started = True
            self._wakeup = socket.socketpair()
            for end in self._wakeup:
                end.setblocking(False)
            self._io_thread = threading.Thread(target=self._run, args=self._wakeup, name="mesos", daemon=True)
            self._io_thread.start()

    def stop(self) -> None:
        """Ends the subscription and the thread. Tasks and the framework are left as they are."""
        with self._lock:
            self._started = False
            self._session = None
        self._notify()

    def abort(self) -> None:
        """As stop()."""
        self.stop()

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits until the thread has ended; returns whether it has."""
        thread = self._io_thread
        if thread is None:
            return True
        if thread is threading.current_thread():
            return False
        thread.join(timeout_s)
        return not thread.is_alive()

    def run(self) -> None:
        """Starts and waits for the end."""
        self.start()
        self.join()

    def change_master(self, new_master: str | None) -> None:
        """Works with the daemon at "host:port" from now on; None: waits until one is known.

        Raises:
            ValueError: if it is not an address.
        """
        if new_master is not None:
            parse_address(new_master)
        with self._lock:
            if new_master == self._new_master:
                return
            self._new_master = new_master
            self._redirected_to = None
            self._master_version += 1
        self._notify()

    def _resubscribe(self, session: Session) -> None:
        """The daemon does not know this subscription any more, though nothing said so: begins anew at once."""
        with self._lock:
            if self._session is not session:
                return
            self._master_version += 1
        self._notify()

    def _notify(self) -> None:
        with self._lock:
            if self._wakeup is not None:
                with contextlib.suppress(BlockingIOError):  # the buffer is full of wakeups: one is enough
                    self._wakeup[1].send(b"\0")

    def _require_session(self) -> Session:
        session = self._session
        if session is None:
            raise NotConnected("not subscribed to Mesos just now")
        return session

    # --- the thread ------------------------------------------------------------------------------------------------

    def _run(self, wakeup: socket.socket, wakeup_writer: socket.socket) -> None:
        try:
            while self._started:
                with self._lock:
                    version = self._master_version
                    master = self._master = self._redirected_to or self._new_master
                if master is None:
                    self._sleep(None, wakeup, version)
                else:
                    self._serve(master, wakeup, version)
        except Exception as error:  # nobody above this thread would see it
            logger.exception("the driver failed")
            self._report_callback("driver", error)
        finally:
            with self._lock:
                self._started = False
                self._session = None
                self._wakeup = None
            wakeup.close()
            wakeup_writer.close()
            self._calls.close()

    def _serve(self, master: str, wakeup: socket.socket, version: int) -> None:
        """One attempt, from the connection to the end of the subscription, and the pause behind it."""
        pause = True
        self._subscribed_at = None
        failure = ""
        try:
            self._subscribe(master, wakeup, version)
        except _Interrupted:
            pause = False
        except Redirected as error:
            failure = str(error)
            logger.info("Mesos at %s: %s", master, failure)
            with self._lock:
                pause = self._redirected_to is not None
                if version == self._master_version:
                    self._redirected_to = error.address
        except CallRefused as error:
            failure = str(error)
            # A daemon that is starting answers 404 until its routes are set up, and 503 while it recovers.
            if error.status < 500 and error.status != http.client.NOT_FOUND:
                self._finish_subscription()
                self._on_refused(error)
                return
        except (OSError, MesosError) as error:
            failure = str(error) or type(error).__name__
            with self._lock:  # whom a redirect named is gone; the one who was configured may know better
                self._redirected_to = None
        if self._ending:
            self._sleep(CALL_TIMEOUT_S, wakeup, version)
        self._finish_subscription()
        if not pause or not self._started:
            return
        if self._subscribed_at is not None and time.monotonic() - self._subscribed_at >= self._backoff.max_s:
            self._backoff.reset()  # it had worked; a subscription that breaks at once proves nothing
        delay_s = self._backoff.next_s()
        self.last_error = f"{master}: {failure}"
        logger.warning("Mesos at %s: %s; trying again in %.1f s", master, failure, delay_s)
        self._guarded("connectionFailed", self._on_attempt_failed, self.last_error, delay_s)
        self._sleep(delay_s, wakeup, version)

    def _finish_subscription(self) -> None:
        with self._lock:
            was_connected, self._session = self._session is not None, None
        self._calls.close()
        if was_connected and self._started:
            self._guarded("disconnected", self.on_close)

    def _subscribe(self, master: str, wakeup: socket.socket, version: int) -> None:
        """Subscribes and reads events until it fails."""
        with self._connect(master, wakeup, version) as sock, selectors.DefaultSelector() as selector:
            sock.settimeout(CALL_TIMEOUT_S)
            sock.sendall(self.gen_request())
            sock.setblocking(False)
            keep_alive(sock)
            address = peer_address(sock)
            stream = EventStream(sock)
            last = time.monotonic()
            selector.register(sock, selectors.EVENT_READ)
            selector.register(wakeup, selectors.EVENT_READ)
            while not stream.ended:
                limit_s = ANSWER_TIMEOUT_S if self._session is None else self._silence_limit_s()
                timeout_s = None if limit_s is None else max(0.0, last + limit_s - time.monotonic())
                ready = {key.fileobj for key, _ in selector.select(timeout_s)}
                if wakeup in ready:
                    _drain(wakeup)
                self._check_interrupted(version)
                if sock in ready:
                    events = stream.receive()
                    last = time.monotonic()
                    for event in events:
                        if self._session is None and isinstance(event, dict) and event.get("type") == "SUBSCRIBED":
                            self._open_session(Session(address, stream.stream_id or ""))
                        self.process_event(event)
                        self._check_interrupted(version)
                elif not ready and limit_s is not None and time.monotonic() >= last + limit_s:
                    raise StreamFailed(f"nothing was heard for {limit_s:.0f} s")
                if self._session is not None:
                    self._on_wakeup(self._session)
        raise StreamFailed("the connection was closed")

    def _open_session(self, session: Session) -> None:
        with self._lock:
            if not self._started:
                raise _Interrupted
            self._session = session
            self._subscribed_at = time.monotonic()
            self.last_error = None

    def process_event(self, event: Any) -> None:
        """Makes the callbacks of one event; whatever they raise is reported and goes no further."""
        name = event.get("type", "event") if isinstance(event, dict) else "event"
        self._guarded(str(name).lower(), self.on_event, event)

    def _guarded(self, name: str, callback: Any, *args: Any) -> None:
        try:
            callback(*args)
        except Exception as error:  # the user's code: a mistake in it must not end the framework
            logger.exception("the callback for %s failed", name)
            self._report_callback(name, error)

    def _connect(self, master: str, wakeup: socket.socket, version: int) -> socket.socket:
        host, port = parse_address(master)
        try:
            targets = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # a label that no name can have
            raise OSError(f"no such host: {error}") from None
        failure = OSError(f"no address for {host}")
        for family, kind, proto, _, target in targets:
            sock = socket.socket(family, kind, proto)
            with contextlib.ExitStack() as cleanup:
                cleanup.callback(sock.close)
                try:
                    self._connect_socket(sock, target, wakeup, version)
                except OSError as error:
                    failure = error
                    continue
                cleanup.pop_all()
                return sock if self._tls is None else _encrypted(sock, self._tls, host)
        raise failure

    def _connect_socket(self, sock: socket.socket, target: Any, wakeup: socket.socket, version: int) -> None:
        sock.setblocking(False)
        code = sock.connect_ex(target)
        if code == errno.EINPROGRESS:
            self._wait_connected(sock, wakeup, version)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def _wait_connected(self, sock: socket.socket, wakeup: socket.socket, version: int) -> None:
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_WRITE)
            selector.register(wakeup, selectors.EVENT_READ)
            while True:
                self._check_interrupted(version)
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    raise TimeoutError(f"no connection within {CONNECT_TIMEOUT_S:.0f} s")
                ready = {key.fileobj for key, _ in selector.select(remaining_s)}
                if sock in ready:
                    return
                _drain(wakeup)

    def _is_interrupted(self, version: int) -> bool:
        with self._lock:
            return not self._started or version != self._master_version

    def _check_interrupted(self, version: int) -> None:
        if self._is_interrupted(version):
            raise _Interrupted

    def _sleep(self, delay_s: float | None, wakeup: socket.socket, version: int) -> None:
        """Pauses until the time is over, the driver is stopped or another master is to be worked with."""
        deadline = None if delay_s is None else time.monotonic() + delay_s
        with selectors.DefaultSelector() as selector:
            selector.register(wakeup, selectors.EVENT_READ)
            while not self._is_interrupted(version):
                remaining_s = None if deadline is None else deadline - time.monotonic()
                if remaining_s is not None and remaining_s <= 0:
                    return
                selector.select(remaining_s)
                _drain(wakeup)


def _encrypted(sock: socket.socket, tls: Tls, host: str) -> socket.socket:
    sock.settimeout(CONNECT_TIMEOUT_S)
    try:
        return tls.context_for(host).wrap_socket(sock, server_hostname=host)
    except OSError:
        sock.close()
        raise


def _drain(wakeup: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while wakeup.recv(4096):
            pass
