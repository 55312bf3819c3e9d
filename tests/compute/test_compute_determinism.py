"""The same bits from run to run, from process to process, and whatever ran before; on AVX2 alone, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import hashlib, sys
import compute
from compute import models, nn, optim
import numpy as np
engine, threads, history = sys.argv[1], int(sys.argv[2]), [int(n) for n in sys.argv[3].split(",")]
garbage = [np.full(1000 + 777 * n, np.nan) for n in history]  # other addresses and other contents for malloc
model = models.lenet5()
program = compute.compile(model, nn.NLLLoss(), (1, 28, 28), engine=engine, threads=threads)
rng = np.random.default_rng(0)
program.parameters[:] = rng.standard_normal(program.parameters.size, dtype=np.float32)
program.parameters_changed()
for n in history:  # other batch sizes, other parameters
    program.forward_backward(np.full((n, 1, 28, 28), n, dtype=np.float32), np.zeros(n, dtype=np.int64), 1.0)
program.parameters[:] = compute.initial_parameters(model, (1, 28, 28), 1)
program.parameters_changed()
rng = np.random.default_rng(1)
optimizer = optim.SGD(0.1, momentum=0.9)
state = optimizer.init(program.parameters.size)
digest = hashlib.sha256()
for step, n in enumerate((32, 32, 17, 1, 32), start=1):
    x, target = rng.standard_normal((n, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, n)
    digest.update(np.float64(program.forward_backward(x, target, 1 / n)).tobytes())
    digest.update(program.gradients.tobytes())
    optimizer.update(program.parameters, program.gradients, state, step, 1)
    program.parameters_changed()
    digest.update(program.forward(x).tobytes())
print(digest.hexdigest(), float(np.abs(program.parameters).sum(dtype=np.float64)))
"""


def run(engine: str, history: str, threads: int = 1, **environment: str) -> tuple[str, float]:
    """Digest of all results and a sum of the final weights, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, engine, str(threads), history],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KMP_BLOCKTIME": "0", **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    digest, total = done.stdout.split()
    return digest, float(total)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engine", ["numpy", "mkl", "onednn"])
def test_bits_depend_on_nothing_that_ran_before(engine: str, threads: int) -> None:
    digests = {
        run(engine, "3", threads)[0],
        run(engine, "64,32,1", threads)[0],
        run(engine, "5,100", threads, MALLOC_PERTURB_="165", MALLOC_MMAP_THRESHOLD_="100000000")[0],
    }
    assert len(digests) == 1


TWO_THREADS = """
import sys
import compute
from compute import nn
import numpy as np
shape = (8, 32, 32)
model = nn.Sequential(
    nn.Conv2d(8, 32, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 15 * 15, 10), nn.LogSoftmax()
)
x = np.random.default_rng(0).standard_normal((32, *shape), dtype=np.float32)
def run(engine):
    program = compute.compile(model, nn.NLLLoss(), shape, engine=engine, threads=2)
    program.parameters[:] = compute.initial_parameters(model, shape, 1)
    program.parameters_changed()
    for _ in range(4):
        yield program.forward_backward(x, np.arange(32) % 10, 1 / 32), program.gradients.tobytes()
results = {result for _ in range(2) for result in run(sys.argv[1])}
assert len(results) == 1, len(results)
found, expected = results.pop(), next(run("numpy"))
np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
found, expected = np.frombuffer(found[1], np.float32), np.frombuffer(expected[1], np.float32)
np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
assert len(__import__("os").listdir("/proc/self/task")) >= 2
"""


@pytest.mark.parametrize("engine", ["mkl", "onednn"])
def test_two_threads_give_the_same_right_bits_each_time(engine: str) -> None:
    """A network whose calls are large enough to be shared by the threads."""
    done = subprocess.run(
        [sys.executable, "-c", TWO_THREADS, engine],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KMP_BLOCKTIME": "0"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("engine", ["mkl", "onednn"])
def test_plain_avx2_gives_the_same_within_rounding(engine: str) -> None:
    narrow = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    first, second = run(engine, "3", **narrow), run(engine, "40,2", **narrow)
    assert first == second
    assert first[1] == pytest.approx(run(engine, "3")[1], rel=1e-5)


def test_import_loads_no_engine_and_starts_no_thread() -> None:
    script = (
        "import threading, compute\n"
        "maps = open('/proc/self/maps').read()\n"
        "assert 'libmkl' not in maps and 'libdnnl' not in maps and 'libiomp' not in maps\n"
        "import os\n"
        "print(len(os.listdir('/proc/self/task')))\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize("engine", ["numpy", "mkl", "onednn"])
def test_one_thread_means_one(engine: str) -> None:
    script = SCRIPT + "\nimport os\nassert len(os.listdir('/proc/self/task')) == 1, os.listdir('/proc/self/task')\n"
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", script, engine, "1", "3"],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
