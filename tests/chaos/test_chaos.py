"""benchmarks/chaos, in small: `python -m benchmarks.chaos --seed N --minutes M` is the whole of it."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.chaos.schedule import ALWAYS, FIRST_S, GAP_S, KINDS, NETWORK, draw
from tests.mesos_api.real_mesos import mesos_directory

ROOT = Path(__file__).resolve().parents[2]


@given(st.integers(), st.floats(10, 600), st.floats(1, 30), st.booleans())
def test_the_same_seed_the_same_faults(seed: int, length_s: float, longest_s: float, network: bool) -> None:
    faults = draw(seed, length_s, longest_s, network)
    assert faults == draw(seed, length_s, longest_s, network)
    assert faults[0].at_s == FIRST_S
    gaps = [after.at_s - before.at_s for before, after in itertools.pairwise(faults)]
    assert all(GAP_S[0] <= gap <= GAP_S[1] for gap in gaps)
    assert faults[-1].at_s < length_s <= faults[-1].at_s + GAP_S[1]
    assert all(0 < fault.lasts_s <= max(longest_s, 1.0) for fault in faults)
    assert {fault.kind for fault in faults} <= set(KINDS)
    assert network or not {fault.kind for fault in faults} & NETWORK
    if len(faults) >= len(ALWAYS):
        assert {fault.kind for fault in faults[: len(ALWAYS)]} == set(ALWAYS)


def test_other_seeds_other_faults() -> None:
    assert len({tuple(draw(seed, 300)) for seed in range(20)}) == 20


@pytest.mark.cluster
def test_some_faults_change_no_bit() -> None:
    mesos_directory()  # or there is nothing to test with
    command = [sys.executable, "-m", "benchmarks.chaos", "--seed", "3", "--minutes", "0.3", "--longest", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 3: as undisturbed, weights sha256 " in done.stdout
    faults = next(line for line in done.stdout.splitlines() if " faults " in line)
    assert sum(kind in faults for kind in ALWAYS) >= 2, done.stdout
