"""A forward pass asks for parameters before it reads them, and computes the same when they come only then."""

import numpy as np
import pytest

import compute
from compute import nn
from tests.compute.test_compute_final import NETWORKS

PROGRESSIVE = "batch norm"  # has stages of oneDNN's own layouts


@pytest.mark.parametrize("engine", ["numpy", "mkl", "onednn"])
@pytest.mark.parametrize("network", NETWORKS)
def test_parameters_that_come_when_they_are_needed(network: str, engine: str) -> None:
    make, shape = NETWORKS[network]
    program = compute.compile(make(), nn.NLLLoss(), shape, engine=engine)
    x, target = np.random.default_rng(1).random((4, *shape), dtype=np.float32), np.array([0, 1, 2, 3])
    for version in (1, 2, 3):
        values = compute.initial_parameters(make(), shape, version)
        program.parameters[:] = values
        program.parameters_changed()
        loss = program.forward_backward(x, target, 0.25, (1, 1, 0))
        gradients = program.gradients.copy()

        program.parameters[:] = np.nan
        program.parameters_changed()
        asked: list[tuple[int, int]] = []

        def needed(
            begin: int, end: int, values: np.ndarray = values, asked: list[tuple[int, int]] = asked
        ) -> None:
            program.parameters[begin:end] = values[begin:end]
            asked.append((begin, end))

        assert program.forward_backward(x, target, 0.25, (1, 1, 0), needed=needed) == loss
        np.testing.assert_array_equal(program.gradients, gradients)
        if engine == "onednn" and network == PROGRESSIVE:
            assert len(asked) > 2, "it asked for all at once"
            statistics = [p.offset for p in program.graph.parameters if p.spec.kind == "statistic"]
            assert statistics
            assert all(end <= min(statistics) for _, end in asked), "training does not read them"


def test_a_pass_that_got_no_parameters_leaves_nothing_behind() -> None:
    make, shape = NETWORKS[PROGRESSIVE]
    program = compute.compile(make(), nn.NLLLoss(), shape)
    x, target = np.random.default_rng(1).random((4, *shape), dtype=np.float32), np.array([0, 1, 2, 3])
    values = compute.initial_parameters(make(), shape, 1)
    program.parameters[:] = values
    loss = program.forward_backward(x, target, 0.25, (1, 1, 0))
    gradients = program.gradients.copy()
    left = 2

    def needed(begin: int, end: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise KeyError("gone")

    program.parameters *= 2
    program.parameters_changed()
    with pytest.raises(KeyError):
        program.forward_backward(x, target, 0.25, (1, 1, 0), needed=needed)
    program.parameters[:] = values
    program.parameters_changed()
    assert program.forward_backward(x, target, 0.25, (1, 1, 0)) == loss
    np.testing.assert_array_equal(program.gradients, gradients)
