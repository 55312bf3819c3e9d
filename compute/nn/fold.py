"""Moves a dimension of the sample into the batch and back: what lets any layer run over each step of a sequence."""

from __future__ import annotations

from compute.errors import InputError
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.spec import Shape, Specs, TensorSpec


class Fold(UnaryLayer):
    """Base of the two: arrays keep their memory, rows of the batch become more or fewer."""

    def __init__(self, times: int, name: str | None = None) -> None:
        super().__init__(name)
        self.times = times

    def repeat_after(self, repeat: int) -> int:
        """Rows per sample of the output, given that of the input."""
        raise NotImplementedError

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        return (TensorSpec(self.output_shape(inputs[0].shape), inputs[0].dtype),)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        shape = self.output_shape(x.shape[1:])
        return x.reshape(-1, *shape)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return grad_y.reshape(x.shape)


class FoldIn(Fold):
    """(n, times, *shape) to (n * times, *shape)."""

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape or input_shape[0] != self.times:
            raise InputError(f"needs ({self.times}, ...)")
        return input_shape[1:]

    def repeat_after(self, repeat: int) -> int:
        return repeat * self.times


class FoldOut(Fold):
    """(n * times, *shape) to (n, times, *shape)."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return (self.times, *input_shape)

    def repeat_after(self, repeat: int) -> int:
        return repeat // self.times
