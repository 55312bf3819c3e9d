"""A training that writes checkpoints is killed again and again: the newest complete checkpoint always loads."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compute import checkpoint
from tests.executor.checkpoint_writer import FINGERPRINT, slices, train_step

KILLS = 50
PARAMETERS = int(os.environ.get("MESOGRAD_KILLED_PARAMETERS", "400000"))  # 15000000: VGG-16 for CIFAR-10
SLOWNESS = max(1.0, PARAMETERS / 2e6)  # how much longer than usual a checkpoint takes


class Expected:
    """What an undisturbed training holds after each step."""

    def __init__(self) -> None:
        self._slices = slices(PARAMETERS)

    def at(self, step: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        while self._slices[0].version < step:
            for held in self._slices:
                assert train_step(held, PARAMETERS)
                held.commit(held.version)
        assert self._slices[0].version == step, "the checkpoints went backwards"
        arrays = {checkpoint.PARAMETERS: np.concatenate([held.parameters for held in self._slices])}
        for name in self._slices[0].update.state:
            arrays[name] = np.concatenate([held.update.state[name] for held in self._slices])
        return arrays


@pytest.mark.timeout(300 * SLOWNESS)
def test_a_training_that_is_killed_at_fifty_moments(tmp_path: Path) -> None:
    random_moment = random.Random(20)
    expected, place = Expected(), str(tmp_path / "c")
    killed_in: dict[str, int] = {}
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.executor.checkpoint_writer", place, str(PARAMETERS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert writer.stdin is not None
    assert writer.stdout is not None
    try:
        for _ in range(KILLS):
            before = checkpoint.newest(place)
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
            word, pid = writer.stdout.readline().split()
            assert word == b"pid"
            told = 0
            for _ in range(random_moment.randrange(3)):
                told = int(writer.stdout.readline().split()[1])
            wait_for_moment(random_moment.uniform(0.0, 0.06) * SLOWNESS)
            os.kill(int(pid), signal.SIGKILL)
            while (line := writer.stdout.readline()) != b"over\n":
                assert line, "the writer ended by itself"
                told = int(line.split()[1])
            newest = check_newest(place, expected)
            assert newest >= told, "a checkpoint that was complete is gone"
            assert newest >= (int(before[-8:]) if before else 0)
            for remain in remains(place):
                killed_in[remain] = killed_in.get(remain, 0) + 1
        assert checkpoint.newest(place) is not None
        assert sum(killed_in.values()) >= KILLS / 10, f"hardly a kill has hit a checkpoint being written: {killed_in}"
        assert checkpoint.steps(place)[-1] > KILLS / 2, "hardly a training has got anywhere"
    finally:
        writer.stdin.close()
        writer.wait(30)
        writer.stdout.close()


def wait_for_moment(seconds: float) -> None:
    """Nothing but time decides about the moment: it is the fault itself."""
    threading.Event().wait(seconds)


def check_newest(place: str, expected: Expected) -> int:
    """Loads the newest complete checkpoint and compares every bit; its step, 0 for none."""
    url = checkpoint.newest(place)
    if url is None:
        return 0
    manifest = checkpoint.read_manifest(url)
    checkpoint.check(url, manifest, FINGERPRINT, PARAMETERS, {})
    loaded = checkpoint.load_slice(url, manifest, 0, PARAMETERS)
    wanted = expected.at(manifest.step)
    assert loaded.keys() == wanted.keys()
    for name, array in loaded.items():
        assert array.tobytes() == wanted[name].tobytes(), f"{name} of step {manifest.step} differs"
    return int(manifest.step)


def remains(place: str) -> list[str]:
    """What the kill has left half done."""
    found = []
    for step in checkpoint.steps(place):
        directory = Path(checkpoint.step_url(place, step))
        names = [path.name for path in directory.iterdir()]
        if checkpoint.MANIFEST not in names:
            found.append("a file" if any(name.startswith(".") for name in names) else "between files")
    return found
