"""Convolutional LSTM."""

from __future__ import annotations

import math

from compute.errors import InputError
from compute.nn.convolution import convolve, convolve_grad_input, convolve_grad_weight
from compute.nn.gated_cell import LSTMBase
from compute.nn.init import FanIn, Initializer
from compute.nn.layer import Array
from compute.nn.module import positive, sizes
from compute.nn.window import Window
from compute.spec import Shape


class ConvLSTMCell(LSTMBase):
    """nn.LSTMCell with convolutions for its maps; BigDL's ConvLSTMPeephole (Shi et al., Convolutional LSTM, 2015).

    Inputs are (input_size, *size), the states h and c (hidden_size, *size); the number of dimensions of `size` is that
    of kernel_size, or `dims` if that is one number. Convolutions have stride 1 and keep the size. Peepholes weigh
    channels.

    Parameters: `weight_ih` (4 * hidden_size, input_size, *kernel), `weight_hh` (4 * hidden_size, hidden_size, *kernel),
    with bias `bias_ih` and `bias_hh` (4 * hidden_size,), with peephole `weight_ci`, `weight_cf`, `weight_co`
    (hidden_size,); all start uniform in +-1/sqrt(hidden_size * kernel elements).

    Args:
        kernel_size: of both convolutions, odd.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        kernel_size: int | tuple[int, ...] = 3,
        bias: bool = True,
        peephole: bool = True,
        dims: int = 2,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        positive(self.kind, dims=dims)
        self.dims = dims if isinstance(kernel_size, int) else len(kernel_size)
        self.kernel_size = sizes(self.kind, "kernel_size", kernel_size, self.dims, 1)
        if not all(size % 2 for size in self.kernel_size):
            raise InputError(f"{self.kind}: kernel_size must be odd, got {kernel_size!r}")
        ones = (1,) * self.dims
        self.window = Window(self.kernel_size, ones, tuple(size // 2 for size in self.kernel_size), ones)
        default = FanIn(hidden_size * math.prod(self.kernel_size) if isinstance(hidden_size, int) else 1)
        super().__init__(
            input_size, hidden_size, bias, peephole, weight_init or default, bias_init or default, name
        )

    def state_shapes(self, input_shape: Shape) -> tuple[Shape, ...]:
        if len(input_shape) != 1 + self.dims or input_shape[0] != self.input_size:
            raise InputError(f"needs, at each step, ({self.input_size}, ...) with {self.dims} dimensions behind")
        return ((self.hidden_size, *input_shape[1:]),) * 2

    def fan_shape(self, size: int) -> Shape:
        return (size, *self.kernel_size)

    def map(self, x: Array, weight: Array) -> Array:
        return convolve(x, weight, self.window, 1, x.shape[2:])

    def map_backward(self, grad: Array, weight: Array) -> Array:
        return convolve_grad_input(grad, weight, self.window, 1, grad.shape[2:])

    def map_gradient(self, grad: Array, x: Array, weight: Array) -> Array:
        return convolve_grad_weight(x, grad, self.window, 1).reshape(weight.shape)
