"""Gradient clipping, of all weights together or element by element."""

from __future__ import annotations

from compute.errors import InputError
from compute.optim.optimizer import ANY, POSITIVE


class ClipValue:
    """Each gradient element is forced into [low, high]. BigDL's setConstantGradientClipping."""

    def __init__(self, low: float, high: float) -> None:
        if not (ANY.holds(low) and ANY.holds(high) and low < high):
            raise InputError(f"optim.ClipValue needs two numbers, low < high, got {low!r} and {high!r}")
        self.low, self.high = float(low), float(high)


class ClipNorm:
    """The gradient is multiplied by min(1, max_norm / (norm + 1e-6)), norm its global L2 norm: over all weights that
    are not frozen, of all servers. torch.nn.utils.clip_grad_norm_, BigDL's setGradientClippingByl2Norm.
    """

    def __init__(self, max_norm: float) -> None:
        if not POSITIVE.holds(max_norm):
            raise InputError(f"optim.ClipNorm: max_norm must be a positive number, got {max_norm!r}")
        self.max_norm = float(max_norm)

    def factor(self, norm: float) -> float:
        """What the gradient is multiplied by."""
        return min(1.0, self.max_norm / (norm + 1e-6))


Clip = ClipValue | ClipNorm
