"""Initializers of parameters. Each draws from a `Stream`, so that it gives the same values on every machine."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compute.described import Described
from compute.errors import InputError
from compute.philox import Stream


class Initializer(Described, ABC):
    """Base of all initializers; subclass it for one of your own."""

    @abstractmethod
    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        """The initial values, float32 of `shape`; random ones come from `stream` only."""


class Constant(Initializer):
    """Every element is `value`."""

    def __init__(self, value: float) -> None:
        self.value = float(value)

    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        return np.full(shape, self.value, dtype=np.float32)


class Zeros(Constant):
    """Every element is 0."""

    def __init__(self) -> None:
        super().__init__(0.0)


class Ones(Constant):
    """Every element is 1."""

    def __init__(self) -> None:
        super().__init__(1.0)


class RandomUniform(Initializer):
    """Uniform in [low, high)."""

    def __init__(self, low: float, high: float) -> None:
        if not low <= high:
            raise InputError(f"RandomUniform needs low <= high, got {low} and {high}")
        self.low, self.high = float(low), float(high)

    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        # Multiply, add and round in float64: each is exactly defined by IEEE 754, so all machines agree.
        return (self.low + (self.high - self.low) * stream.uniform64(shape)).astype(np.float32)


class FanIn(RandomUniform):
    """Uniform in +-1/sqrt(fan_in): the default of Torch and BigDL for convolutions and linear layers."""

    def __init__(self, fan_in: int) -> None:
        bound = 1.0 / float(np.sqrt(np.float64(fan_in)))
        super().__init__(-bound, bound)


class RandomNormal(Initializer):
    """Normal with the given mean and standard deviation."""

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        if not 0 <= std < math.inf:
            raise InputError(f"{type(self).__name__} needs a standard deviation of at least 0, got {std!r}")
        self.mean, self.std = float(mean), float(std)

    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        return (self.mean + self.std * stream.normal(shape).astype(np.float64)).astype(np.float32)


class TruncatedNormal(RandomNormal):
    """Normal with the given mean and standard deviation, drawn again where it is not in [low, high].

    By default values lie within two standard deviations.
    """

    def __init__(
        self, mean: float = 0.0, std: float = 1.0, low: float | None = None, high: float | None = None
    ) -> None:
        super().__init__(mean, std)
        self.low = mean - 2 * std if low is None else float(low)
        self.high = mean + 2 * std if high is None else float(high)
        if not self.low <= self.high or _normal_mass(self.low, self.high, mean, std) < 0.01:
            raise InputError(
                f"TruncatedNormal({mean}, {std}): hardly any values lie in [{self.low}, {self.high}]; "
                "use RandomUniform there"
            )

    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        values = super().__call__((math.prod(shape),), stream)
        while True:
            outside = np.flatnonzero((values < self.low) | (values > self.high))
            if not len(outside):
                return values.reshape(shape)
            values[outside] = super().__call__((len(outside),), stream)


class XavierUniform(Initializer):
    """Uniform in +-gain * sqrt(6 / (fan_in + fan_out)). Glorot and Bengio (2010); torch.nn.init.xavier_uniform_."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = float(gain)

    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        bound = self.gain * math.sqrt(6.0 / sum(fans(shape)))
        return RandomUniform(-bound, bound)(shape, stream)


class XavierNormal(Initializer):
    """Normal, std = gain * sqrt(2 / (fan_in + fan_out)). Glorot and Bengio (2010); torch.nn.init.xavier_normal_."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = float(gain)

    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        return RandomNormal(0.0, self.gain * math.sqrt(2.0 / sum(fans(shape))))(shape, stream)


class Kaiming(Initializer):
    """Base of KaimingUniform and KaimingNormal.

    Args:
        a: slope of a leaky ReLU behind the layer for x < 0; 0 for a ReLU.
        mode: what the variance is kept for: "fan_in" the forward pass, "fan_out" the backward pass, "fan_avg" between.
        gain: instead of sqrt(2 / (1 + a^2)), that of a (leaky) ReLU.
    """

    def __init__(
        self, a: float = 0.0, mode: Literal["fan_in", "fan_out", "fan_avg"] = "fan_in", gain: float | None = None
    ) -> None:
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise InputError(f"{type(self).__name__}: mode must be fan_in, fan_out or fan_avg, got {mode!r}")
        self.mode = mode
        self.gain = math.sqrt(2.0 / (1.0 + a * a)) if gain is None else float(gain)

    def std(self, shape: tuple[int, ...]) -> float:
        """Standard deviation gain / sqrt(fan) for a weight of this shape."""
        fan_in, fan_out = fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        return self.gain / math.sqrt(fan)


class KaimingUniform(Kaiming):
    """Uniform in +-gain * sqrt(3 / fan). He et al. (2015); torch.nn.init.kaiming_uniform_."""

    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        bound = math.sqrt(3.0) * self.std(shape)
        return RandomUniform(-bound, bound)(shape, stream)


class KaimingNormal(Kaiming):
    """Normal, std = gain / sqrt(fan). He et al. (2015); torch.nn.init.kaiming_normal_; BigDL's MsraFiller."""

    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        return RandomNormal(0.0, self.std(shape))(shape, stream)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, *kernel), as PyTorch counts them.

    Raises:
        InputError: the parameter has fewer than two dimensions.
    """
    if len(shape) < 2:
        raise InputError(f"this initializer is for weights (out, in, ...), not for a parameter of shape {shape}")
    area = math.prod(shape[2:])
    return shape[1] * area, shape[0] * area


def _normal_mass(low: float, high: float, mean: float, std: float) -> float:
    """Probability that a normal value lies in [low, high]."""
    if std == 0:
        return float(low <= mean <= high)
    scale = std * math.sqrt(2)
    return (math.erf((high - mean) / scale) - math.erf((low - mean) / scale)) / 2


class Bilinear(Initializer):
    """Every kernel interpolates linearly: for transposed convolutions (in, out, *kernel) that enlarge.

    weight[.., k..] = product over dimensions of 1 - |k / f - c|, f = ceil(kernel / 2), c = (2 f - 1 - f mod 2) / (2 f).
    Caffe's and BigDL's BilinearFiller.
    """

    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        if len(shape) < 3:
            raise InputError(f"Bilinear is for the weights of convolutions, not for a parameter of shape {shape}")
        kernel = np.ones(())
        for size in shape[2:]:
            f = -(-size // 2)
            center = (2 * f - 1 - f % 2) / (2 * f)
            kernel = np.multiply.outer(kernel, 1 - np.abs(np.arange(size) / f - center))
        return np.broadcast_to(kernel, shape).astype(np.float32)


class Orthogonal(Initializer):
    """Rows (or columns, if there are fewer) of the weight as a matrix (out, rest) are orthogonal, of length `gain`.

    Normal vectors are orthogonalized one after the other (Gram and Schmidt, twice), by additions, multiplications,
    divisions and square roots in a fixed order, so that all machines agree; a library's QR is faster, but its last bits
    depend on the processor. Matrices of thousands of rows take minutes. Saxe et al., Exact Solutions (2013);
    torch.nn.init.orthogonal_.
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = float(gain)

    def __call__(self, shape: tuple[int, ...], stream: Stream) -> NDArray[np.float32]:
        if len(shape) < 2:
            raise InputError(f"Orthogonal is for weights (out, in, ...), not for a parameter of shape {shape}")
        rows, columns = shape[0], math.prod(shape[1:])
        basis = stream.normal((min(rows, columns), max(rows, columns))).astype(np.float64)
        for index, vector in enumerate(basis):
            before = basis[:index]
            for _ in range(2):
                vector -= _fixed_sum(_fixed_sum((before * vector).T)[:, None] * before)
            vector /= np.sqrt(_fixed_sum(vector * vector))
        return (self.gain * (basis if rows <= columns else basis.T)).reshape(shape).astype(np.float32)


def _fixed_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over the first dimension, halves added to halves: an order that no library's version or processor changes."""
    if not len(values):
        return np.zeros(values.shape[1:])
    while len(values) > 1:
        half = len(values) // 2
        rest = values[2 * half :]
        values = values[:half] + values[half : 2 * half]
        if len(rest):
            values = np.concatenate([values, rest])
    total: NDArray[np.float64] = values[0]
    return total
