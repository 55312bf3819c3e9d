"""What a TaskInfo asks of the executor."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class TaskRequestError(ValueError):
    """The TaskInfo cannot be carried out."""


@dataclass(frozen=True)
class TaskRequest:
    """A child to be started.

    Attributes:
        line: for its standard input: the TaskInfo's data, one JSON object on one line, the newline included.
        threads: OpenMP threads it may use.
        env: variables that override those the executor sets.
    """

    line: bytes
    threads: int
    env: dict[str, str]


def parse_task_request(task: Mapping[str, Any]) -> TaskRequest:
    """Reads the data of a TaskInfo in Mesos' JSON (see "Processes" in docs/architecture.md).

    Raises:
        TaskRequestError: with one line that says what is wrong.
    """
    try:
        data = json.loads(base64.b64decode(task.get("data", ""), validate=True))
    except (ValueError, binascii.Error) as error:
        raise TaskRequestError(f"the task's data is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise TaskRequestError("the task's data is not a JSON object")
    threads = data.get("threads", 1)
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise TaskRequestError(f"threads must be a positive integer, not {threads!r}")
    env = data.get("env") or {}
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise TaskRequestError("env must be an object of strings")
    return TaskRequest(json.dumps(data).encode() + b"\n", threads, env)


def child_environment(base: Mapping[str, str], request: TaskRequest) -> dict[str, str]:
    """The environment of a task's child: it computes with its own threads, which sleep when there is nothing to do."""
    threads = str(request.threads)
    return {
        **base,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "NUMEXPR_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "passive",
        "KMP_BLOCKTIME": "0",
        # What is freed stays with the process, in large pages: messages of 2 MB that come and go would else cost page
        # faults every time (glibc's manual, "Memory Allocation Tunables"; measured in docs/exchange.md). And copies of
        # about a piece and more go past the caches: what they write is not read before the caches hold other things.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
        "MALLOC_TOP_PAD_": str(64 << 20),
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.cpu.x86_non_temporal_threshold=0xe0000",
        "PYTHONUNBUFFERED": "1",  # or the log of a task is always 8 KiB behind
        **request.env,
    }


def grace_period_s(kill_policy: Mapping[str, Any] | None) -> float | None:
    """Seconds between SIGTERM and SIGKILL that a KillPolicy asks for; None if it does not."""
    nanoseconds = ((kill_policy or {}).get("grace_period") or {}).get("nanoseconds")
    return None if nanoseconds is None else max(0.0, int(nanoseconds) / 1e9)
