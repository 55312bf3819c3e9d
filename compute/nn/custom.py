"""Layers written by users in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.nn.module import Module, Shape
from compute.philox import Stream

Array = NDArray[np.float32]


class LayerContext:
    """What a custom layer knows of the pass it runs in.

    Attributes:
        training: False in evaluation.
        key: (seed, step, micro_batch) of a training pass, (0, 0, 0) in evaluation.
        saved: a dict, empty before each forward, to carry values from forward to backward.
    """

    def __init__(self, layer_index: int) -> None:
        self.training = False
        self.key: tuple[int, int, int] = (0, 0, 0)
        self.saved: dict[str, Any] = {}
        self._layer_index = layer_index

    def stream(self) -> Stream:
        """Random numbers of this layer in this pass: the same whichever worker computes it."""
        seed, step, micro_batch = self.key
        return Stream("layer", seed, step, micro_batch, self._layer_index)


class CustomLayer(Module):
    """Base for your own layers; works in every engine and needs nothing but numpy.

    Override `forward` and `backward`, and `output_shape` and `parameters` where the defaults (same shape, no
    parameters) do not fit. Call `super().__init__(name)` if you define `__init__`. Keep no per-batch state in `self`:
    use `context.saved`. Results must depend on nothing but the arguments and `context.stream()`.

        class Scale(nn.CustomLayer):
            def parameters(self, input_shape):
                return [nn.Parameter("factor", (1,), nn.init.Ones())]

            def forward(self, x, parameters, context):
                return x * parameters["factor"]

            def backward(self, x, y, grad_y, parameters, gradients, context):
                gradients["factor"][0] = np.sum(grad_y * x)
                return grad_y * parameters["factor"]
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of one output sample; the input's by default."""
        return input_shape

    def forward(self, x: Array, parameters: dict[str, Array], context: LayerContext) -> Array:
        """The output for x, float32 (n, *input_shape). Must not write into x or the parameters."""
        raise NotImplementedError(f"{self.kind} must define forward")

    def backward(
        self,
        x: Array,
        y: Array,
        grad_y: Array,
        parameters: dict[str, Array],
        gradients: dict[str, Array],
        context: LayerContext,
    ) -> Array:
        """The gradient for x, given that for y. Adds those of the parameters to `gradients`, which are zeros before."""
        raise NotImplementedError(f"{self.kind} must define backward")
