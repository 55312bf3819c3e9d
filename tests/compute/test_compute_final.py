"""While a backward pass runs it says which gradients have their values: each once, and the value is the final one."""

import numpy as np
import pytest

import compute
from compute import models, nn


def shared_weights() -> nn.Module:
    layer = nn.Linear(8, 8)
    return nn.Sequential(nn.Linear(8, 8), layer, nn.Tanh(), layer, nn.Linear(8, 4), nn.LogSoftmax())


NETWORKS = {
    "lenet": (models.lenet5, (1, 28, 28)),
    "batch norm": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 36, 4), nn.LogSoftmax(),
        ),
        (3, 8, 8),
    ),
    "shared weights": (shared_weights, (8,)),
}  # fmt: skip


@pytest.mark.parametrize("engine", ["numpy", "mkl", "onednn"])
@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_said_to_be_final_is(network: str, engine: str) -> None:
    make, shape = NETWORKS[network]
    program = compute.compile(make(), nn.NLLLoss(), shape, engine=engine)
    program.parameters[:] = compute.initial_parameters(make(), shape, 1)
    program.parameters_changed()
    x = np.random.default_rng(1).random((4, *shape), dtype=np.float32)
    for _ in range(2):  # the second time nothing is as fresh memory is
        early = np.full(program.gradients.shape, np.nan, dtype=np.float32)
        times = np.zeros(program.gradients.shape, dtype=int)
        calls: list[tuple[int, int]] = []

        def final(
            begin: int, end: int, early: np.ndarray = early, times: np.ndarray = times,
            calls: list[tuple[int, int]] = calls,
        ) -> None:  # fmt: skip
            early[begin:end] = program.gradients[begin:end]
            times[begin:end] += 1
            calls.append((begin, end))

        program.gradients.fill(7.0)
        program.forward_backward(x, np.array([0, 1, 2, 3]), 0.25, (1, 1, 0), final)
        assert (times == 1).all()
        np.testing.assert_array_equal(early, program.gradients)
        if engine != "numpy":
            assert len(calls) > 2, "nothing could be sent early"
            assert calls[0][0] > program.gradients.size / 2, "the last layers' gradients are known first"
