"""Follow the regularized leader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compute.errors import InputError
from compute.optim.optimizer import NOT_NEGATIVE, POSITIVE, Array, ElementwiseOptimizer, Range, Rate, single
from compute.schedule import Schedule


class Ftrl(ElementwiseOptimizer):
    """FTRL-Proximal (McMahan et al.: Ad Click Prediction, 2013), with TensorFlow's names and options. BigDL's Ftrl.

    With q = -learning_rate_power and w the parameters, n and z the state:
    h = g + 2 * l2_shrinkage * w; m = n + g**2; z += h - (m**q - n**q) / rate * w; n = m;
    w = 0 where |z| <= l1, else (sign(z) * l1 - z) / ((beta + m**q) / rate + 2 * l2).

    The l1 and l2 here act on the leader, which gives exact zeros; a layer's own regularizers act on the gradient.

    Args:
        initial_accumulator_value: of n; may only be 0 where beta or l2 is not.
    """

    ranges = {
        "learning_rate_power": Range(-10.0, 0.0, open_high=False), "initial_accumulator_value": NOT_NEGATIVE,
        "l1": NOT_NEGATIVE, "l2": NOT_NEGATIVE, "l2_shrinkage": NOT_NEGATIVE, "beta": NOT_NEGATIVE,
        "learning_rate": POSITIVE,
    }  # fmt: skip
    work_arrays = 4

    def __init__(
        self,
        learning_rate: float = 1e-3,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1: float = 0.0,
        l2: float = 0.0,
        l2_shrinkage: float = 0.0,
        beta: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(
            learning_rate, schedule, learning_rate_power=learning_rate_power,
            initial_accumulator_value=initial_accumulator_value, l1=l1, l2=l2, l2_shrinkage=l2_shrinkage, beta=beta,
        )  # fmt: skip
        if not (initial_accumulator_value or beta or l2):
            raise InputError("Ftrl: initial_accumulator_value, beta or l2 must be above 0: all three divide the update")

    learning_rate_power: float
    initial_accumulator_value: float
    l1: float
    l2: float
    l2_shrinkage: float
    beta: float

    def state_values(self) -> dict[str, float]:
        return {"accumulator": self.initial_accumulator_value, "linear": 0.0}

    def _power(self, value: Array, out: Array) -> None:
        if self.learning_rate_power == -0.5:
            np.sqrt(value, out=out)
        else:
            np.power(value, np.float32(-self.learning_rate_power), out=out)

    def update_block(
        self, p: Array, g: Array, state: Mapping[str, Array], rate: Rate, step: int, work: Sequence[Array]
    ) -> None:
        n, z = state["accumulator"], state["linear"]
        shrunk, sigma, power, scratch = work
        inverse = single(1.0 / np.maximum(rate, 1e-30) if isinstance(rate, np.ndarray) else 1.0 / max(rate, 1e-30))
        if self.l2_shrinkage:
            np.multiply(p, np.float32(2.0 * self.l2_shrinkage), out=shrunk)
            np.add(shrunk, g, out=shrunk)
        else:
            np.copyto(shrunk, g)
        self._power(n, sigma)
        np.multiply(g, g, out=scratch)
        np.add(n, scratch, out=n)
        self._power(n, power)
        np.subtract(power, sigma, out=sigma)
        np.multiply(sigma, inverse, out=sigma)
        np.multiply(sigma, p, out=sigma)
        np.subtract(shrunk, sigma, out=shrunk)
        np.add(z, shrunk, out=z)
        np.add(power, np.float32(self.beta), out=power)
        np.multiply(power, inverse, out=power)
        np.add(power, np.float32(2.0 * self.l2), out=power)
        # sign(z) * l1 - z, and zero in between, is clip(z, -l1, l1) - z
        np.clip(z, np.float32(-self.l1), np.float32(self.l1), out=scratch)
        np.subtract(scratch, z, out=scratch)
        np.divide(scratch, power, out=p)
