"""Activations."""

from __future__ import annotations

from compute.errors import InputError
from compute.nn.module import Module, Shape


class Tanh(Module):
    """Hyperbolic tangent, element by element."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


class ReLU(Module):
    """max(x, 0), element by element; its gradient at 0 is 0."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


class LogSoftmax(Module):
    """log(softmax(x)) of flat samples."""

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise InputError("needs (classes,); put nn.Flatten() before it")
        return input_shape
