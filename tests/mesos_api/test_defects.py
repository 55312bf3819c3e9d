"""Each known defect of pymesos 0.3.15: our driver does not have it, and pymesos does (or the test proves nothing)."""

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.mesos_api.defects import DEFECTS, Defect, Drivers

ALL = [pytest.param(defect, id=name) for name, defect in DEFECTS.items()]
AT_ONCE = 6  # most of the time the scenarios wait for something that pymesos does not do


@pytest.mark.parametrize("defect", ALL)
def test_mended(defect: Defect) -> None:
    with Drivers(original=False) as drivers:
        defect.run(drivers)


@pytest.fixture(scope="module")
def pymesos_runs(request: pytest.FixtureRequest) -> "Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]":
    def run(name: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "tests.mesos_api.defects", name]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        wanted = [item.nodeid for item in request.session.items if "test_pymesos_has_it" in item.nodeid]
        runs = {name: pool.submit(run, name) for name in DEFECTS if any(f"[{name}]" in nodeid for nodeid in wanted)}
        yield runs
        for future in runs.values():
            future.cancel()


@pytest.mark.parametrize("defect", ALL)
def test_pymesos_has_it(defect: Defect, pymesos_runs: "dict[str, Future[subprocess.CompletedProcess[str]]]") -> None:
    done = pymesos_runs[defect.name].result()
    assert done.stdout.startswith("FAILED"), f"pymesos passed: {done.stdout}{done.stderr}"
    said = done.stdout + done.stderr
    assert re.search(defect.symptom, said, re.MULTILINE), f"pymesos failed in another way: {said}"
