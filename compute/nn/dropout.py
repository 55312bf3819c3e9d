"""Dropout and noise: layers that are random in training and the identity in evaluation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.layer import Array, Arrayed, Layer, LayerContext, UnaryLayer
from compute.philox import Stream
from compute.spec import Arrays, Shape


def probability(kind: str, p: float) -> float:
    """`p` as a float; InputError unless 0 <= p < 1."""
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p < 1:
        raise InputError(f"{kind}: the probability p must be at least 0 and below 1, got {p!r}")
    return float(p)


def quantized(p: float) -> tuple[int, int]:
    """(threshold, levels): p as threshold / levels, levels 256 where p is a multiple of 1/256 and 65536 otherwise."""
    if (p * 256).is_integer():
        return int(p * 256), 256
    return min(max(round(p * 65536), 1), 65535), 65536


_DRAWN_AT_ONCE = 1 << 16
"""Few enough that the words stay in the processor's cache; a multiple of the words in 64 bits."""


def keep_mask(stream: Stream, count: int, p: float, out: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """bool (count,): False with probability p, which `quantized` rounds to the nearest 1/65536.

    Raw random words are compared to a threshold: four to eight elements from each 64-bit word of Philox.

    Args:
        out: C-contiguous, of `count` elements in any shape; is written to and returned where it is given.
    """
    threshold, levels = quantized(p)
    draw = stream.words8 if levels == 256 else stream.words16
    mask = np.empty(count, dtype=bool) if out is None else out
    flat = mask.reshape(-1)
    for start in range(0, count, _DRAWN_AT_ONCE):
        part = flat[start : start + _DRAWN_AT_ONCE]
        words = draw(len(part))
        np.greater_equal(words, words.dtype.type(threshold), out=part)
    return mask


def keep_scale(p: float) -> np.float32:
    """1 / (1 - p) for p as `keep_mask` rounds it, so that the expectation of what is kept is exactly the input."""
    threshold, levels = quantized(p)
    return np.float32(levels / (levels - threshold))


class Dropout(UnaryLayer):
    """y = x * mask / (1 - p) in training, mask being 0 with probability p, else 1; y = x in evaluation.

    Any shape. p is exact where it is a multiple of 1/256 and otherwise rounded to the nearest multiple of 1/65536. The
    mask follows (seed, step, micro-batch, layer): the same whichever worker computes it.

    Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting (2014); torch.nn.Dropout.
    """

    def __init__(self, p: float = 0.5, name: str | None = None) -> None:
        super().__init__(name)
        self.p = probability(self.kind, p)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        if not context.training or self.p == 0:
            return x
        context.saved["mask"] = keep_mask(context.stream(), x.size, self.p, np.empty(x.shape, dtype=bool))
        return self._masked(x, context)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return self._masked(grad_y, context) if "mask" in context.saved else grad_y

    def _masked(self, x: Array, context: LayerContext) -> Array:
        result: Array = x * keep_scale(self.p)
        result *= context.saved["mask"]
        return result


class GaussianDropout(UnaryLayer):
    """y = x * (1 + sqrt(p / (1 - p)) * normal) in training: the variance of dropout; y = x in evaluation. Any shape.

    Srivastava et al. (2014), section 10; BigDL's and Keras' GaussianDropout(rate).
    """

    def __init__(self, p: float = 0.5, name: str | None = None) -> None:
        super().__init__(name)
        self.p = probability(self.kind, p)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        if not context.training or self.p == 0:
            return x
        factor = context.stream().normal(x.shape)
        factor *= np.float32(math.sqrt(self.p / (1 - self.p)))
        factor += np.float32(1)
        context.saved["factor"] = factor
        return x * factor

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return grad_y * context.saved["factor"] if "factor" in context.saved else grad_y


class GaussianNoise(UnaryLayer):
    """y = x + stddev * normal in training, y = x in evaluation. Any shape."""

    def __init__(self, stddev: float, name: str | None = None) -> None:
        super().__init__(name)
        if not 0 <= stddev < math.inf:
            raise InputError(f"GaussianNoise: stddev must be a number that is not negative, got {stddev!r}")
        self.stddev = float(stddev)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        if not context.training:
            return x
        noise = context.stream().normal(x.shape)
        noise *= np.float32(self.stddev)
        noise += x
        return noise

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return grad_y


class GaussianSampler(Layer):
    """Draws from normal distributions: y = mean + exp(log_variance / 2) * normal, for a table (mean, log_variance).

    Both of one shape, which is the output's. In training the numbers follow (seed, step, micro-batch, layer); in
    evaluation y = mean. The reparametrization of variational autoencoders: Kingma & Welling (2013); BigDL's
    GaussianSampler.
    """

    arity = 2

    def output_shape(self, *input_shapes: Shape) -> Shape:
        mean, log_variance = input_shapes
        if mean != log_variance:
            raise InputError("needs a table (mean, log_variance) of one shape")
        return mean

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        mean, log_variance = inputs
        if not context.training:
            return (mean,)
        deviation = np.exp(np.float32(0.5) * log_variance)
        deviation *= context.stream().normal(mean.shape)
        context.saved["deviation"] = deviation
        return (mean + deviation,)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        (grad_y,) = grad_outputs
        if "deviation" not in context.saved:
            return grad_y, np.zeros_like(grad_y)
        return grad_y, grad_y * np.float32(0.5) * context.saved["deviation"]
