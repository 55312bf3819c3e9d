"""Optimizers that divide by the root of summed or averaged squares: Adagrad, Adadelta, RMSprop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compute.optim.optimizer import FRACTION, NOT_NEGATIVE, POSITIVE, Array, ElementwiseOptimizer, Rate, single
from compute.schedule import Schedule


def _decayed(p: Array, g: Array, weight_decay: float, out: Array) -> Array:
    """g + weight_decay * p."""
    if not weight_decay:
        return g
    np.multiply(p, np.float32(weight_decay), out=out)
    np.add(out, g, out=out)
    return out


def _average(average: Array, g: Array, keep: float, work: Array) -> None:
    """average = keep * average + (1 - keep) * g**2."""
    np.multiply(g, g, out=work)
    np.multiply(work, np.float32(1.0 - keep), out=work)
    np.multiply(average, np.float32(keep), out=average)
    np.add(average, work, out=average)


class Adagrad(ElementwiseOptimizer):
    """As torch.optim.Adagrad (Duchi, Hazan, Singer, 2011); weight decay is added to the gradient. BigDL's Adagrad.

    sum += g**2; parameters -= rate / (1 + (step - 1) * lr_decay) * g / (sqrt(sum) + eps).
    """

    ranges = {
        "lr_decay": NOT_NEGATIVE, "weight_decay": NOT_NEGATIVE, "initial_accumulator_value": NOT_NEGATIVE,
        "eps": POSITIVE,
    }  # fmt: skip

    def __init__(
        self,
        learning_rate: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(
            learning_rate, schedule, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, eps=eps,
        )  # fmt: skip

    lr_decay: float
    weight_decay: float
    initial_accumulator_value: float
    eps: float

    def state_values(self) -> dict[str, float]:
        return {"sum": self.initial_accumulator_value}

    def update_block(
        self, p: Array, g: Array, state: Mapping[str, Array], rate: Rate, step: int, work: Sequence[Array]
    ) -> None:
        total, (scratch, spare) = state["sum"], work
        g = _decayed(p, g, self.weight_decay, spare)
        np.multiply(g, g, out=scratch)
        np.add(total, scratch, out=total)
        np.sqrt(total, out=scratch)
        np.add(scratch, np.float32(self.eps), out=scratch)
        np.divide(g, scratch, out=scratch)
        np.multiply(scratch, single(rate / (1.0 + (step - 1) * self.lr_decay)), out=scratch)
        np.subtract(p, scratch, out=p)


class Adadelta(ElementwiseOptimizer):
    """As torch.optim.Adadelta (Zeiler, 2012); weight decay is added to the gradient. BigDL's Adadelta.

    v = rho * v + (1 - rho) * g**2; d = sqrt(u + eps) / sqrt(v + eps) * g; u = rho * u + (1 - rho) * d**2;
    parameters -= rate * d.
    """

    ranges = {"rho": FRACTION, "eps": POSITIVE, "weight_decay": NOT_NEGATIVE}
    work_arrays = 3

    def __init__(
        self,
        learning_rate: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(learning_rate, schedule, rho=rho, eps=eps, weight_decay=weight_decay)

    rho: float
    eps: float
    weight_decay: float

    def state_values(self) -> dict[str, float]:
        return {"square_avg": 0.0, "acc_delta": 0.0}

    def update_block(
        self, p: Array, g: Array, state: Mapping[str, Array], rate: Rate, step: int, work: Sequence[Array]
    ) -> None:
        v, u = state["square_avg"], state["acc_delta"]
        scratch, spare, delta = work
        g = _decayed(p, g, self.weight_decay, spare)
        _average(v, g, self.rho, scratch)
        np.add(v, np.float32(self.eps), out=scratch)
        np.sqrt(scratch, out=scratch)
        np.add(u, np.float32(self.eps), out=delta)
        np.sqrt(delta, out=delta)
        np.divide(delta, scratch, out=delta)
        np.multiply(delta, g, out=delta)
        _average(u, delta, self.rho, scratch)
        np.multiply(delta, single(rate), out=scratch)
        np.subtract(p, scratch, out=p)


class RMSprop(ElementwiseOptimizer):
    """As torch.optim.RMSprop (Hinton, 2012); weight decay is added to the gradient. BigDL's RMSprop.

    v = alpha * v + (1 - alpha) * g**2; d = g / (sqrt(v) + eps), with `centered` g / (sqrt(v - a**2) + eps) where
    a = alpha * a + (1 - alpha) * g; with momentum b = momentum * b + d takes the place of d; parameters -= rate * d.
    """

    ranges = {"alpha": FRACTION, "eps": POSITIVE, "weight_decay": NOT_NEGATIVE, "momentum": NOT_NEGATIVE}

    def __init__(
        self,
        learning_rate: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(learning_rate, schedule, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        self.centered = bool(centered)

    alpha: float
    eps: float
    weight_decay: float
    momentum: float

    def state_values(self) -> dict[str, float]:
        names = ["square_avg"]
        names += ["grad_avg"] if self.centered else []
        names += ["momentum"] if self.ever("momentum") else []
        return dict.fromkeys(names, 0.0)

    def update_block(
        self, p: Array, g: Array, state: Mapping[str, Array], rate: Rate, step: int, work: Sequence[Array]
    ) -> None:
        v, (scratch, spare) = state["square_avg"], work
        g = _decayed(p, g, self.weight_decay, spare)
        _average(v, g, self.alpha, scratch)
        if self.centered:
            a = state["grad_avg"]
            np.subtract(g, a, out=scratch)
            np.multiply(scratch, np.float32(1.0 - self.alpha), out=scratch)
            np.add(a, scratch, out=a)
            np.multiply(a, a, out=scratch)
            np.subtract(v, scratch, out=scratch)
            np.sqrt(scratch, out=scratch)
        else:
            np.sqrt(v, out=scratch)
        np.add(scratch, np.float32(self.eps), out=scratch)
        np.divide(g, scratch, out=scratch)
        if self.momentum:
            b = state["momentum"]
            np.multiply(b, np.float32(self.momentum), out=b)
            np.add(b, scratch, out=b)
            np.multiply(b, single(rate), out=scratch)
        else:
            np.multiply(scratch, single(rate), out=scratch)
        np.subtract(p, scratch, out=p)
