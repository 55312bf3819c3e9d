"""The loss of a large batch, computed by several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from compute import InputError, TensorSpec, compile, initial_parameters, nn
from compute.engines.split_loss import LARGE, SplitLoss

SAMPLES, CLASSES = 13, LARGE // 8
RNG = np.random.default_rng(3)
SCORES = RNG.standard_normal((SAMPLES, CLASSES), dtype=np.float32)
LABELS = RNG.integers(0, CLASSES, SAMPLES)


def run(criterion: nn.Criterion, threads: int, target: NDArray[np.generic]) -> tuple[float, NDArray[np.float32]]:
    outputs = SCORES.copy()
    grads = outputs if criterion.in_place else np.full_like(outputs, np.nan)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        loss = SplitLoss(criterion, (outputs,), (grads,), threads, pool if threads else None)((target,), 0.25)
    return loss, grads


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.MSELoss()], ids=["in place", "beside"])
def test_gradients_are_to_the_bit_those_of_the_whole_batch(criterion: nn.Criterion) -> None:
    target = LABELS if isinstance(criterion, nn.CrossEntropyLoss) else RNG.standard_normal(SCORES.shape).astype("f4")
    whole = np.empty_like(SCORES)
    loss = criterion.loss_and_gradient((SCORES,), (target,), 0.25, (whole,))
    for threads in (0, 1, 2, 5, 20):
        found, grads = run(criterion, threads, target)
        assert found == pytest.approx(loss, rel=1e-12)
        assert found == run(criterion, threads, target)[0]
        np.testing.assert_array_equal(grads, whole)


@pytest.mark.parametrize("threads", [0, 3])
def test_a_wrong_label_is_reported_with_its_place_in_the_whole_batch(threads: int) -> None:
    labels = LABELS.copy()
    labels[10] = CLASSES
    with pytest.raises(InputError, match="sample 10 of the batch"):
        run(nn.CrossEntropyLoss(), threads, labels)


def test_what_a_criterion_raises_in_a_thread_is_raised() -> None:
    class Broken(nn.MSELoss):
        def loss_and_gradient(self, *arguments: object) -> float:
            raise ZeroDivisionError("as users' criterions may")

    with pytest.raises(ZeroDivisionError, match="users' criterions"):
        run(Broken(), 2, np.zeros_like(SCORES))


def test_scores_for_many_classes_train_alike_with_one_thread_and_two() -> None:
    found = []
    for threads in (1, 2):
        model = nn.Sequential(nn.Linear(4, CLASSES))
        program = compile(model, nn.CrossEntropyLoss(), TensorSpec((4,)), threads=threads)
        program.parameters[:] = initial_parameters(model, TensorSpec((4,)), 1)
        program.parameters_changed()
        loss = program.forward_backward(SCORES[:, :4], LABELS, 1 / SAMPLES)
        found.append((loss, program.gradients.copy()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-7)
