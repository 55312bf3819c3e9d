"""A job's state in a SQLite file of its own: DIRECTORY/JOB/state.sqlite, readable by its owner only.

The rollback journal rather than the write-ahead log: the latter needs memory shared by all who use the file, which a
directory shared by several hosts does not give.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from scheduler.fencing import DriverRuns, Holder, LockFile, Superseded
from scheduler.json_values import Json, decode, encode
from scheduler.state_store import Driver, StateError

FILE_NAME = "state.sqlite"
BUSY_TIMEOUT_S = 10.0

_SCHEMA = """
CREATE TABLE record (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE driver (only INTEGER PRIMARY KEY CHECK (only = 1), epoch INTEGER NOT NULL, holder TEXT NOT NULL);
"""


class SqliteStore:
    """A StateStore. The lock is a file for each epoch, so that a driver that hangs can be taken over from."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / FILE_NAME
        self._connection: sqlite3.Connection | None = None
        self._epoch = 0
        self._lock: LockFile | None = None
        self._one_at_a_time = threading.Lock()

    def create(self, records: Mapping[str, Json]) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise StateError(f"cannot create {self._path}: {error.strerror}") from error
        with self._transaction() as connection:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            self._write(connection, records)
            self._take(connection, 1)
            connection.execute("INSERT INTO driver VALUES (1, ?, ?)", (1, _this_process()))

    def acquire(self, take_over: bool = False) -> int:
        with self._transaction() as connection:
            driver = self._driver(connection)
            if driver.lives and not take_over:
                raise DriverRuns(str(driver.holder))
            epoch = driver.epoch + 1
            self._take(connection, epoch)
            connection.execute("UPDATE driver SET epoch = ?, holder = ?", (epoch, _this_process()))
        return epoch

    def load(self) -> dict[str, Json]:
        with self._transaction() as connection:
            return {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM record")}

    def save(self, changes: Mapping[str, Json | None]) -> None:
        with self._transaction() as connection:
            self._check(connection)
            self._write(connection, changes)

    def check(self) -> None:
        with self._transaction() as connection:
            self._check(connection)

    def driver(self) -> Driver:
        with self._transaction() as connection:
            return self._driver(connection)

    def remove(self) -> None:
        self.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def close(self) -> None:
        with self._one_at_a_time:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        if self._lock is not None:
            self._lock.release(remove=True)
            self._lock = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One at a time, over all processes: whoever is in it sees nothing change but by its own doing."""
        try:
            with self._one_at_a_time:
                connection = self._connect()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
        except (sqlite3.Error, ValueError) as error:
            raise StateError(f"{self._path}: {error}") from error
        except OSError as error:
            raise StateError(f"{error.filename or self._path}: {error.strerror or error}") from error

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            if not self._path.is_file():
                raise StateError(f"there is no {self._path}")
            self._connection = sqlite3.connect(
                self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = TRUNCATE")
            self._connection.execute("PRAGMA synchronous = FULL")
        return self._connection

    def _lock_file(self, epoch: int) -> LockFile:
        return LockFile(self._directory / f"driver.{epoch}.lock")

    def _take(self, connection: sqlite3.Connection, epoch: int) -> None:
        lock = self._lock_file(epoch)
        if not lock.acquire():
            raise DriverRuns("a process that has only just begun")
        (self._directory / f"driver.{epoch - 1}.lock").unlink(missing_ok=True)
        self._lock, self._epoch = lock, epoch

    def _driver(self, connection: sqlite3.Connection) -> Driver:
        epoch, holder = connection.execute("SELECT epoch, holder FROM driver").fetchone()
        lives = epoch == self._epoch or self._lock_file(epoch).is_held()
        return Driver(epoch, decode(Holder, json.loads(holder)), lives)

    def _check(self, connection: sqlite3.Connection) -> None:
        epoch, holder = connection.execute("SELECT epoch, holder FROM driver").fetchone()
        if epoch != self._epoch:
            raise Superseded(str(decode(Holder, json.loads(holder))))

    def _write(self, connection: sqlite3.Connection, changes: Mapping[str, Json | None]) -> None:
        connection.executemany("DELETE FROM record WHERE key = ?", [(key,) for key in changes])
        rows = [(key, json.dumps(value)) for key, value in changes.items() if value is not None]
        connection.executemany("INSERT INTO record VALUES (?, ?)", rows)


class SqliteStates:
    """All jobs below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __str__(self) -> str:
        return str(self._directory)

    def prepare(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"cannot create {self._directory}: {error.strerror}") from error
        if not os.access(self._directory, os.W_OK | os.X_OK):
            raise StateError(f"cannot write to {self._directory}")

    def ids(self) -> list[str]:
        return sorted(path.parent.name for path in self._directory.glob(f"*/{FILE_NAME}"))

    def store(self, job_id: str) -> SqliteStore:
        return SqliteStore(self._directory / job_id)

    def close(self) -> None:
        pass


def _this_process() -> str:
    return json.dumps(encode(Holder.this_process()))
