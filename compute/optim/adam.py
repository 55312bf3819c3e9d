"""Adam and its kin: step sizes from running moments of the gradient, corrected for their start at zero."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from compute.errors import InputError
from compute.optim.optimizer import FRACTION, NOT_NEGATIVE, POSITIVE, Array, ElementwiseOptimizer, Rate, single
from compute.schedule import Schedule


class _Moments(ElementwiseOptimizer):
    ranges = {"eps": POSITIVE, "weight_decay": NOT_NEGATIVE}

    def __init__(
        self, learning_rate: float, betas: tuple[float, float], eps: float, weight_decay: float,
        schedule: Schedule | None,
    ) -> None:
        super().__init__(learning_rate, schedule, eps=eps, weight_decay=weight_decay)
        if not (isinstance(betas, tuple | list) and len(betas) == 2 and all(FRACTION.holds(beta) for beta in betas)):
            raise InputError(f"{self.kind}: betas must be two numbers in [0, 1), got {betas!r}")
        self.betas = (float(betas[0]), float(betas[1]))

    eps: float
    weight_decay: float


class Adam(_Moments):
    """As torch.optim.Adam (Kingma, Ba, 2015); weight decay is added to the gradient. BigDL's Adam and ParallelAdam.

    m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g**2;
    parameters -= rate * (m / (1 - beta1**step)) / (sqrt(v / (1 - beta2**step)) + eps).
    """

    decoupled = False

    def __init__(
        self,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(learning_rate, betas, eps, weight_decay, schedule)

    def state_values(self) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def update_block(
        self, p: Array, g: Array, state: Mapping[str, Array], rate: Rate, step: int, work: Sequence[Array]
    ) -> None:
        m, v = state["exp_avg"], state["exp_avg_sq"]
        beta1, beta2 = self.betas
        scratch, spare = work
        if self.weight_decay and self.decoupled:
            np.multiply(p, single(1.0 - rate * self.weight_decay), out=p)
        elif self.weight_decay:
            np.multiply(p, np.float32(self.weight_decay), out=spare)
            np.add(spare, g, out=spare)
            g = spare
        np.subtract(g, m, out=scratch)
        np.multiply(scratch, np.float32(1.0 - beta1), out=scratch)
        np.add(m, scratch, out=m)
        np.multiply(g, g, out=scratch)
        np.multiply(scratch, np.float32(1.0 - beta2), out=scratch)
        np.multiply(v, np.float32(beta2), out=v)
        np.add(v, scratch, out=v)
        np.sqrt(v, out=scratch)
        np.divide(scratch, np.float32(math.sqrt(1.0 - beta2**step)), out=scratch)
        np.add(scratch, np.float32(self.eps), out=scratch)
        np.divide(m, scratch, out=scratch)
        np.multiply(scratch, single(rate / (1.0 - beta1**step)), out=scratch)
        np.subtract(p, scratch, out=p)


class AdamW(Adam):
    """As torch.optim.AdamW (Loshchilov, Hutter, 2019): Adam with decoupled decay, parameters *= 1 - rate *
    weight_decay before the step, the gradient left alone.
    """

    decoupled = True

    def __init__(
        self,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(learning_rate, betas, eps, weight_decay, schedule)


class Adamax(_Moments):
    """As torch.optim.Adamax (Kingma, Ba, 2015, section 7.1); weight decay is added to the gradient. BigDL's Adamax.

    m = beta1 * m + (1 - beta1) * g; u = max(beta2 * u, |g| + eps); parameters -= rate / (1 - beta1**step) * m / u.
    """

    def __init__(
        self,
        learning_rate: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(learning_rate, betas, eps, weight_decay, schedule)

    def state_values(self) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_inf": 0.0}

    def update_block(
        self, p: Array, g: Array, state: Mapping[str, Array], rate: Rate, step: int, work: Sequence[Array]
    ) -> None:
        m, u = state["exp_avg"], state["exp_inf"]
        beta1, beta2 = self.betas
        scratch, spare = work
        if self.weight_decay:
            np.multiply(p, np.float32(self.weight_decay), out=spare)
            np.add(spare, g, out=spare)
            g = spare
        np.subtract(g, m, out=scratch)
        np.multiply(scratch, np.float32(1.0 - beta1), out=scratch)
        np.add(m, scratch, out=m)
        np.abs(g, out=scratch)
        np.add(scratch, np.float32(self.eps), out=scratch)
        np.multiply(u, np.float32(beta2), out=u)
        np.maximum(u, scratch, out=u)
        np.divide(m, u, out=scratch)
        np.multiply(scratch, single(rate / (1.0 - beta1**step)), out=scratch)
        np.subtract(p, scratch, out=p)
