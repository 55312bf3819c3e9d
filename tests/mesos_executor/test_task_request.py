"""What the executor reads out of a TaskInfo."""

import base64
import json
from typing import Any

import pytest

from executor.sandbox import SandboxPaths, tail
from executor.task_request import TaskRequestError, child_environment, grace_period_s, parse_task_request


def task(data: Any) -> dict[str, Any]:
    return {"data": base64.b64encode(json.dumps(data, indent=1).encode()).decode()}


def test_a_request() -> None:
    request = parse_task_request(task({"role": "worker", "threads": 4, "env": {"A": "b"}, "text": "zwei\nZeilen ü"}))
    assert request.threads == 4
    assert request.env == {"A": "b"}
    assert request.line.endswith(b"\n")
    assert request.line.count(b"\n") == 1, "the child reads one line"
    assert json.loads(request.line)["text"] == "zwei\nZeilen ü"


def test_what_may_be_missing() -> None:
    request = parse_task_request(task({"env": None}))
    assert (request.threads, request.env) == (1, {})


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({}, "not JSON"),
        ({"data": "%%%"}, "not JSON"),
        ({"data": base64.b64encode(b"\xff\xfe{").decode()}, "not JSON"),
        (task([1]), "not a JSON object"),
        (task({"threads": 0}), "threads must be a positive integer, not 0"),
        (task({"threads": True}), "threads must be a positive integer"),
        (task({"threads": "2"}), "threads must be a positive integer, not '2'"),
        (task({"env": {"A": 1}}), "env must be an object of strings"),
        (task({"env": ["A"]}), "env must be an object of strings"),
    ],
)
def test_what_cannot_be_carried_out(info: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskRequestError, match=message):
        parse_task_request(info)


def test_the_childs_environment() -> None:
    request = parse_task_request(task({"threads": 4, "env": {"KMP_BLOCKTIME": "200", "NEW": "1"}}))
    environment = child_environment({"PATH": "/bin", "OMP_NUM_THREADS": "64"}, request)
    assert environment["PATH"] == "/bin"
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "4"
    assert environment["OMP_WAIT_POLICY"] == "passive"
    assert environment["KMP_BLOCKTIME"] == "200"
    assert environment["NEW"] == "1"
    assert child_environment({}, parse_task_request(task({})))["KMP_BLOCKTIME"] == "0"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (None, None),
        ({}, None),
        ({"grace_period": {}}, None),
        ({"grace_period": {"nanoseconds": 1_500_000_000}}, 1.5),
        ({"grace_period": {"nanoseconds": "1500000000"}}, 1.5),  # how protobuf's JSON writes 64 bit numbers
        ({"grace_period": {"nanoseconds": -1}}, 0.0),
    ],
)
def test_grace_periods(policy: Any, expected: float | None) -> None:
    assert grace_period_s(policy) == expected


def test_tails(tmp_path: Any) -> None:
    path = SandboxPaths(tmp_path).stderr("t.1")
    assert path == tmp_path / "t.1.stderr"
    assert tail(path) == ""
    path.write_bytes(b"".join(b"line %d\n" % i for i in range(10_000)) + b"\xff the end\n\n")
    assert tail(path, lines=2) == "line 9999\n\ufffd the end"
    assert len(tail(path, lines=10_000, max_bytes=100)) <= 100
