"""Arithmetic on each element, with fixed and with learnt numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.broadcast import sum_for_parameter
from compute.nn.elementwise import Elementwise, number
from compute.nn.init import FanIn, Initializer
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.nn.module import Parameter, positive
from compute.spec import Shape


class Abs(Elementwise):
    """|x|; its gradient at 0 is 0. Any shape. torch.abs."""

    def function(self, x: Array) -> Array:
        return np.abs(x)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.sign(x)


class Sign(Elementwise):
    """-1, 0 or 1; no gradient passes. Any shape. torch.sign."""

    def function(self, x: Array) -> Array:
        return np.sign(x)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.zeros(x.shape, dtype=np.float32)


class Square(Elementwise):
    """x^2. Any shape. torch.square."""

    def function(self, x: Array) -> Array:
        return np.square(x)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return x + x


class Sqrt(Elementwise):
    """Square root. Any shape. torch.sqrt."""

    def function(self, x: Array) -> Array:
        return np.sqrt(x)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.float32(0.5) / y


class Reciprocal(Elementwise):
    """1 / x. Any shape. torch.reciprocal."""

    def function(self, x: Array) -> Array:
        return np.float32(1) / x

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return -y * y


class Power(Elementwise):
    """(shift + scale * x) ^ power. Any shape. BigDL's and Caffe's Power."""

    def __init__(self, power: float, scale: float = 1.0, shift: float = 0.0, name: str | None = None) -> None:
        super().__init__(name)
        self.power, self.scale, self.shift = number(self.kind, power=power, scale=scale, shift=shift)

    def function(self, x: Array) -> Array:
        return np.power(self._base(x), np.float32(self.power))

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        if self.power == 0:
            return np.zeros(x.shape, dtype=np.float32)
        return np.float32(self.power * self.scale) * np.power(self._base(x), np.float32(self.power - 1))

    def _base(self, x: Array) -> Array:
        return np.float32(self.scale) * x + np.float32(self.shift)


class Exp(Elementwise):
    """e^x. Any shape. torch.exp."""

    def function(self, x: Array) -> Array:
        return np.exp(x)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return y


class Log(Elementwise):
    """Natural logarithm. Any shape. torch.log."""

    def function(self, x: Array) -> Array:
        return np.log(x)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.float32(1) / x


class AddConstant(Elementwise):
    """x + constant. Any shape."""

    def __init__(self, constant: float, name: str | None = None) -> None:
        super().__init__(name)
        (self.constant,) = number(self.kind, constant=constant)

    def function(self, x: Array) -> Array:
        return x + np.float32(self.constant)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.ones((1,) * x.ndim, dtype=np.float32)


class MulConstant(Elementwise):
    """x * constant. Any shape."""

    def __init__(self, constant: float, name: str | None = None) -> None:
        super().__init__(name)
        (self.constant,) = number(self.kind, constant=constant)

    def function(self, x: Array) -> Array:
        return x * np.float32(self.constant)

    def derivative(self, x: Array, y: Array) -> NDArray[Any]:
        return np.full((1,) * x.ndim, self.constant, dtype=np.float32)


class Negative(MulConstant):
    """-x. Any shape. torch.neg."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(-1.0, name)


class Affine(UnaryLayer):
    """Base of y = weight * x + bias with one or both of shape `size`, which broadcasts against the sample's."""

    has_weight = True
    has_bias = True

    def __init__(
        self,
        *size: int,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        if not size:
            raise InputError(f"{self.kind} needs the size of what it learns, such as {self.kind}(3, 1, 1)")
        for one in size:
            positive(self.kind, size=one)
        self.size = size
        self.weight_init = weight_init or FanIn(math.prod(size))
        self.bias_init = bias_init or FanIn(math.prod(size))

    def output_shape(self, input_shape: Shape) -> Shape:
        last_first = zip(reversed(self.size), reversed(input_shape or (1,)), strict=False)
        if len(self.size) > max(1, len(input_shape)) or any(own not in (1, size) for own, size in last_first):
            raise InputError(f"needs samples to which {self.size} broadcasts")
        return input_shape

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        found = []
        if self.has_weight:
            found.append(Parameter("weight", self.size, self.weight_init))
        if self.has_bias:
            found.append(Parameter("bias", self.size, self.bias_init))
        return found

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        y = x * parameters["weight"] if self.has_weight else x
        return y + parameters["bias"] if self.has_bias else y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        if self.has_bias:
            gradients["bias"] += sum_for_parameter(grad_y, self.size)
        if not self.has_weight:
            return grad_y
        gradients["weight"] += sum_for_parameter(grad_y * x, self.size)
        return grad_y * parameters["weight"]


class Scale(Affine):
    """y = weight * x + bias, both learnt, of shape `size`, which broadcasts against the sample's.

    `Scale(3, 1, 1)` has one weight and one bias for each of 3 channels.

    Parameters: `weight` and `bias` (*size); both start uniform in +-1/sqrt(number of elements), as BigDL's; give
    weight_init=nn.init.Ones() and bias_init=nn.init.Zeros() to start as the identity.
    """


class CMul(Affine):
    """y = weight * x, the weight learnt, of shape `size`, which broadcasts against the sample's.

    Parameters: `weight` (*size), starting uniform in +-1/sqrt(number of elements). BigDL's CMul.
    """

    has_bias = False

    def __init__(self, *size: int, weight_init: Initializer | None = None, name: str | None = None) -> None:
        super().__init__(*size, weight_init=weight_init, name=name)


class Mul(CMul):
    """y = weight * x, with one learnt factor for all elements of any shape.

    Parameters: `weight` (1,), starting uniform in +-1. BigDL's Mul.
    """

    def __init__(self, weight_init: Initializer | None = None, name: str | None = None) -> None:
        super().__init__(1, weight_init=weight_init, name=name)


class CAdd(Affine):
    """y = x + bias, the bias learnt, of shape `size`, which broadcasts against the sample's.

    Parameters: `bias` (*size), starting uniform in +-1/sqrt(number of elements). BigDL's CAdd.
    """

    has_weight = False

    def __init__(self, *size: int, bias_init: Initializer | None = None, name: str | None = None) -> None:
        super().__init__(*size, bias_init=bias_init, name=name)


class Add(CAdd):
    """y = x + bias, with one learnt number for each of `size` features, the last dimension of the sample.

    Parameters: `bias` (size,), starting uniform in +-1/sqrt(size). BigDL's Add.
    """

    def __init__(self, size: int, bias_init: Initializer | None = None, name: str | None = None) -> None:
        super().__init__(size, bias_init=bias_init, name=name)
