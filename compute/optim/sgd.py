"""Stochastic gradient descent."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.optim.optimizer import Array, Optimizer
from compute.schedule import Schedule

_BLOCK = 16384
"""Elements updated at a time: the five arrays of a block fit into the second-level cache."""


class SGD(Optimizer):
    """As torch.optim.SGD: weight decay added to the gradient, momentum with dampening, optionally Nesterov.

    v = momentum * v + (1 - dampening) * g, at step 1 v = g; parameters -= rate * v, or with Nesterov
    parameters -= rate * (g + momentum * v).

    Args:
        schedule: compute.schedule; by default the rate is constant.

    Raises:
        InputError: a value is out of range, or nesterov without momentum or with dampening.
    """

    def __init__(
        self,
        learning_rate: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(learning_rate, schedule)
        for name, value in (("momentum", momentum), ("weight_decay", weight_decay)):
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"SGD: {name} must be a number that is not negative, got {value}")
        if not np.isfinite(dampening):
            raise InputError(f"SGD: dampening must be a number, got {dampening}")
        if nesterov and (momentum == 0 or dampening != 0):
            raise InputError("SGD: nesterov needs momentum > 0 and dampening = 0")
        self.momentum = float(momentum)
        self.dampening = float(dampening)
        self.nesterov = bool(nesterov)
        self.weight_decay = float(weight_decay)

    def init(self, size: int) -> dict[str, Array]:
        return {"momentum": np.zeros(size, dtype=np.float32)} if self.momentum else {}

    def update(self, parameters: Array, gradients: Array, state: dict[str, Array], step: int, epoch: int) -> None:
        rate = np.float32(self.learning_rate_at(step, epoch))
        momentum, fresh = np.float32(self.momentum), np.float32(1.0 - self.dampening)
        decay = np.float32(self.weight_decay)
        size = min(_BLOCK, parameters.size)
        scratch, other = np.empty(size, dtype=np.float32), np.empty(size, dtype=np.float32)
        for start in range(0, parameters.size, _BLOCK):
            block = slice(start, min(start + _BLOCK, parameters.size))
            p, g = parameters[block], gradients[block]
            work, spare = scratch[: p.size], other[: p.size]
            # One numpy operation per rounding and none that could be contracted: the bits do not depend on the slice.
            if self.weight_decay:
                np.multiply(p, decay, out=spare)
                np.add(spare, g, out=spare)
                g = spare
            if self.momentum:
                v = state["momentum"][block]
                if step == 1:
                    np.copyto(v, g)
                else:
                    np.multiply(v, momentum, out=v)
                    if self.dampening:
                        np.multiply(g, fresh, out=work)
                        np.add(v, work, out=v)
                    else:
                        np.add(v, g, out=v)
                if self.nesterov:
                    np.multiply(v, momentum, out=work)
                    np.add(work, g, out=work)
                    g = work
                else:
                    g = v
            np.multiply(g, rate, out=work)
            np.subtract(p, work, out=p)
