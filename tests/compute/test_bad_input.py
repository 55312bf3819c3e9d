"""What a user may get wrong in a script is one clear line, whichever way the mistake came in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import compute
from compute import InputError, TensorSpec, nn


def compiled(model: Any, inputs: Any = (3,), criterion: nn.Criterion | None = None) -> compute.Program:
    return compute.compile(model, criterion, inputs, engine="numpy")


class Own(nn.CustomLayer):
    """A layer that gives what it is told to."""

    def __init__(self, shape: Any = (3,), parameters: Any = ()) -> None:
        super().__init__()
        self.shape, self.wanted = shape, parameters

    def output_shape(self, input_shape: Any) -> Any:
        return self.shape

    def parameters(self, input_shape: Any) -> Any:
        return self.wanted

    def forward(self, x: Any, parameters: Any, context: Any) -> Any:
        return x


class Forgetful(nn.CustomLayer):
    """Its __init__ does not call that of its base."""

    def __init__(self) -> None:
        self.factor = np.float32(2)

    def forward(self, x: Any, parameters: Any, context: Any) -> Any:
        return x * self.factor


A, B = nn.Input(), nn.Input()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: compute.compile(nn.Linear(3, 2), None, (3,), engine=["numpy"]), "unknown engine"),  # type: ignore[arg-type]
        (lambda: nn.Graph(A, None), "needs at least one nn.Input"),  # type: ignore[arg-type]
        (lambda: nn.Graph(A, nn.Linear(3, 2)), "needs at least one nn.Input"),  # type: ignore[arg-type]
        (lambda: nn.Graph([A, np.zeros(3)], nn.ReLU()(A)), "needs at least one nn.Input"),  # type: ignore[list-item]
        (lambda: nn.Graph([A, B], nn.ReLU()(A)), "input 1 is not connected"),
        (lambda: nn.Graph(A, nn.ReLU()(B)), "not among the graph's inputs"),
        (lambda: nn.Conv2d(3, 4, 3.0), "kernel_size must be one or 2 whole numbers"),  # type: ignore[arg-type]
        (lambda: compiled(nn.Linear(3, 2, weight_init=0.5)), r"linear .* initializer of weight must be one of nn.init"),  # type: ignore[arg-type]
        (lambda: compiled(nn.Sequential(Own(None))), r"own_0 \(Own\).*`output_shape` must give a tuple, gave None"),
        (lambda: compiled(Own((3,), {"w": 1})), r"`parameters` must give a list of nn.Parameter, gave \{'w': 1\}"),
        (lambda: compiled(nn.Linear(3, 2)).forward([[0.0, 1.0, 2.0]]), "batches are numpy arrays .* got list"),  # type: ignore[arg-type]
        (lambda: compiled(nn.Linear(3, 2)).forward(None), "batches are numpy arrays .* got NoneType"),  # type: ignore[arg-type]
    ],
)
def test_refusals(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_layer_may_forget_its_base() -> None:
    x = np.ones((1, 3), dtype=np.float32)
    wire = nn.Input()
    for model in (Forgetful(), nn.Sequential(Forgetful()), nn.Graph(wire, Forgetful()(wire))):
        np.testing.assert_array_equal(compiled(model.freeze()).forward(x), 2 * x)


def test_inputs_are_shapes_and_specs_in_any_mixture() -> None:
    model = nn.Graph([A, B], nn.CAddTable()(nn.Embedding(5, 3)(A), B))
    for inputs in ([TensorSpec((), "int64"), (3,)], (TensorSpec((), "int64"), TensorSpec((3,)))):
        assert compiled(model, inputs).input_specs == (TensorSpec((), "int64"), TensorSpec((3,)))


def test_errors_of_values_tell_the_sample() -> None:
    """Also where steps of sequences, or rows of a fold, are what a layer or criterion sees."""
    labels = np.zeros((4, 5), dtype=np.int64)
    labels[2, 3] = 9
    x = np.zeros((4, 5, 3), dtype=np.float32)
    per_step = compiled(nn.LogSoftmax(), (5, 3), nn.TimeDistributedCriterion(nn.NLLLoss()))
    with pytest.raises(InputError, match=r"label 9 .*sample 13 of the batch's steps") as caught:
        per_step.forward_backward(x, labels, 1.0)
    assert caught.value.sample == 2
    for engine in ("numpy", "onednn"):
        embedding = nn.TimeDistributed(nn.Embedding(9, 2, name="words"))
        program = compute.compile(embedding, None, TensorSpec((5, 1), "int64"), engine=engine)
        with pytest.raises(InputError, match=r"words \(Embedding\): id 9") as caught:
            program.forward(labels[:, :, None])
        assert caught.value.sample == 2
