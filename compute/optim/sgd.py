"""Stochastic gradient descent, and its layer-wise scaled form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compute.errors import InputError
from compute.optim.optimizer import ANY, NOT_NEGATIVE, POSITIVE, Array, ElementwiseOptimizer, Rate, single
from compute.schedule import Schedule


class SGD(ElementwiseOptimizer):
    """As torch.optim.SGD: weight decay added to the gradient, momentum with dampening, optionally Nesterov.

    v = momentum * v + (1 - dampening) * g, at step 1 v = g; parameters -= rate * v, or with Nesterov
    parameters -= rate * (g + momentum * v). BigDL's SGD has dampening = momentum unless told otherwise; here it is 0.

    Args:
        schedule: compute.schedule; by default the rate is constant.

    Raises:
        InputError: a value is out of range, or nesterov without momentum or with dampening.
    """

    ranges = {"momentum": NOT_NEGATIVE, "dampening": ANY, "weight_decay": NOT_NEGATIVE}

    def __init__(
        self,
        learning_rate: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(
            learning_rate, schedule, momentum=momentum, dampening=dampening, weight_decay=weight_decay
        )
        if nesterov and (momentum == 0 or dampening != 0):
            raise InputError("SGD: nesterov needs momentum > 0 and dampening = 0")
        self.nesterov = bool(nesterov)

    momentum: float
    dampening: float
    weight_decay: float

    def state_values(self) -> dict[str, float]:
        return {"momentum": 0.0} if self.ever("momentum") else {}

    def update_block(
        self, p: Array, g: Array, state: Mapping[str, Array], rate: Rate, step: int, work: Sequence[Array]
    ) -> None:
        momentum, fresh = np.float32(self.momentum), np.float32(1.0 - self.dampening)
        scratch, spare = work
        if self.weight_decay:
            np.multiply(p, np.float32(self.weight_decay), out=spare)
            np.add(spare, g, out=spare)
            g = spare
        if self.momentum:
            v = state["momentum"]
            if step == 1:
                np.copyto(v, g)
            else:
                np.multiply(v, momentum, out=v)
                if self.dampening:
                    np.multiply(g, fresh, out=scratch)
                    np.add(v, scratch, out=v)
                else:
                    np.add(v, g, out=v)
            if self.nesterov:
                np.multiply(v, momentum, out=scratch)
                np.add(scratch, g, out=scratch)
                g = scratch
            else:
                g = v
        np.multiply(g, single(rate), out=scratch)
        np.subtract(p, scratch, out=p)


class LARS(ElementwiseOptimizer):
    """Layer-wise adaptive rates (You, Gitman, Ginsburg: Large Batch Training of Convolutional Networks, 2017).

    For each parameter (a layer's weight, its bias ...), with w its values and g its gradient, after clipping:
    trust = trust_coefficient * |w| / (|g| + weight_decay * |w|), 1 where |w| or the denominator is zero;
    v = momentum * v + rate * trust * (g + weight_decay * w); w -= v. Norms are L2, over all servers. BigDL's LarsSGD.
    Give biases and normalization layers, where wanted, an SGD of their own by a mapping of optimizers.
    """

    ranges = {"momentum": NOT_NEGATIVE, "weight_decay": NOT_NEGATIVE, "trust_coefficient": POSITIVE}
    work_arrays = 1
    layerwise = True

    def __init__(
        self,
        learning_rate: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(
            learning_rate, schedule, momentum=momentum, weight_decay=weight_decay, trust_coefficient=trust_coefficient
        )

    momentum: float
    weight_decay: float
    trust_coefficient: float

    def state_values(self) -> dict[str, float]:
        return {"momentum": 0.0}

    def trust(self, weight_norm: float, gradient_norm: float) -> float:
        denominator = gradient_norm + self.weight_decay * weight_norm
        return self.trust_coefficient * weight_norm / denominator if weight_norm > 0 and denominator > 0 else 1.0

    def update_block(
        self, p: Array, g: Array, state: Mapping[str, Array], rate: Rate, step: int, work: Sequence[Array]
    ) -> None:
        v, (scratch,) = state["momentum"], work
        np.multiply(p, np.float32(self.weight_decay), out=scratch)
        np.add(scratch, g, out=scratch)
        np.multiply(scratch, single(rate), out=scratch)
        np.multiply(v, np.float32(self.momentum), out=v)
        np.add(v, scratch, out=v)
        np.subtract(p, v, out=p)
