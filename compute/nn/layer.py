"""Layers: modules with mathematics.

A layer carries its formulas as plain numpy: that is the engine `numpy`, the oracle of the other engines' tests, and
what those engines fall back on for layers that they have no kernel for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.nn.module import Module
from compute.philox import Stream
from compute.spec import Arrays, Shape

Array = NDArray[np.float32]
Arrayed = dict[str, Array]
"""Parameters, or their gradients, by their names within the layer."""
Key = tuple[int, int, int]


class Pass:
    """One pass of a program over a micro-batch.

    Attributes:
        training: False in evaluation.
        key: (seed, step, micro_batch) in training, (0, 0, 0) in evaluation.
        share: this micro-batch's share of the step's samples, by which it weighs its statistics.
    """

    def __init__(self) -> None:
        self.training = False
        self.key: Key = (0, 0, 0)
        self.share = 1.0


class LayerContext:
    """What a layer knows of the pass it runs in.

    Attributes:
        saved: a dict, empty before each forward, to carry values from forward to backward.
        needed: for each input, whether `backward` must give its gradient (it may give None where not).
        statistics: where a training forward pass writes the layer's statistics (see nn.Parameter): overwrite each
            with `share` times the micro-batch's value.
    """

    def __init__(self, layer_index: int, current: Pass, needed: tuple[bool, ...], statistics: Arrayed) -> None:
        self.saved: dict[str, Any] = {}
        self.needed = needed
        self.statistics = statistics
        self._layer_index = layer_index
        self._pass = current

    @property
    def training(self) -> bool:
        """False in evaluation."""
        return self._pass.training

    @property
    def key(self) -> Key:
        """(seed, step, micro_batch) of a training pass, (0, 0, 0) in evaluation."""
        return self._pass.key

    @property
    def share(self) -> float:
        """What a statistic (see nn.Parameter) is multiplied by before it is written to its gradient."""
        return self._pass.share

    def stream(self) -> Stream:
        """Random numbers of this layer in this pass: the same whichever worker computes it."""
        seed, step, micro_batch = self.key
        return Stream("layer", seed, step, micro_batch, self._layer_index)


class Layer(Module):
    """Base of layers with several inputs or outputs; see UnaryLayer for the common case.

    Attributes:
        arity: how many inputs it takes; None for any number.

    Override `forward_many` and `backward_many`, `output_specs` or `output_shape`, and `parameters`. Keep no state of a
    batch in `self`: use `context.saved`. Results must depend on nothing but the arguments and `context.stream()`.
    """

    arity: int | None = None

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        """The outputs, each (n, *shape) and as its spec says. Must not write into inputs or parameters."""
        raise NotImplementedError(f"{self.kind} must define forward_many")

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        """The gradient for each input (None: it has none), given that for each output.

        Adds those of the parameters to `gradients`, which are zeros before. Must not write into grad_outputs.
        """
        raise NotImplementedError(f"{self.kind} must define backward_many")


class UnaryLayer(Layer):
    """Base of layers with one float32 input and one output of, by default, the same shape."""

    arity = 1

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of one output sample; the input's by default."""
        return input_shape

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        """The output for x, float32 (n, *input_shape). Must not write into x or the parameters."""
        raise NotImplementedError(f"{self.kind} must define forward")

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array | None:
        """The gradient for x, given that for y. Adds those of the parameters to `gradients`, which are zeros before."""
        raise NotImplementedError(f"{self.kind} must define backward")

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        return (self.forward(inputs[0], parameters, context),)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        return (self.backward(inputs[0], outputs[0], grad_outputs[0], parameters, gradients, context),)


class CustomLayer(UnaryLayer):
    """Base for your own layers with one input; works in every engine and needs nothing but numpy.

    Override `forward` and `backward`, and `output_shape` and `parameters` where the defaults (same shape, no
    parameters) do not fit. Call `super().__init__(name)` if you define `__init__`. Keep no per-batch state in `self`:
    use `context.saved`. Results must depend on nothing but the arguments and `context.stream()`. For several inputs or
    outputs derive from nn.Layer.

        class Scale(nn.CustomLayer):
            def parameters(self, input_shape):
                return [nn.Parameter("factor", (1,), nn.init.Ones())]

            def forward(self, x, parameters, context):
                return x * parameters["factor"]

            def backward(self, x, y, grad_y, parameters, gradients, context):
                gradients["factor"][0] = np.sum(grad_y * x)
                return grad_y * parameters["factor"]
    """
