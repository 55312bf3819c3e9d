"""Convolutional LSTM."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.gated_cell import LSTMCell
from compute.nn.init import FanIn, Initializer
from compute.nn.layer import Array
from compute.nn.module import positive, sizes
from compute.nn.window import windows
from compute.spec import Shape


class ConvLSTMCell(LSTMCell):
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
        default = FanIn(hidden_size * int(np.prod(self.kernel_size)) if isinstance(hidden_size, int) else 1)
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
        columns = self._columns(x)
        y: Array = np.matmul(weight.reshape(len(weight), -1), columns)
        return y.reshape(len(x), len(weight), *x.shape[2:])

    def map_backward(self, grad: Array, weight: Array) -> Array:
        # The convolution keeps the size, so its adjoint is one too: with the kernel turned round.
        turned = np.flip(weight, tuple(range(2, weight.ndim))).swapaxes(0, 1)
        return self.map(grad, np.ascontiguousarray(turned))

    def map_gradient(self, grad: Array, x: Array, weight: Array) -> Array:
        flat = grad.reshape(*grad.shape[:2], -1)
        per_row = np.matmul(flat, self._columns(x).swapaxes(1, 2))
        total: Array = per_row.sum(axis=0).reshape(weight.shape)
        return total

    def _columns(self, x: Array) -> Array:
        """(rows, channels * kernel elements, positions)."""
        padded = np.pad(x, ((0, 0), (0, 0), *((size // 2, size // 2) for size in self.kernel_size)))
        views = windows(padded, self.kernel_size, (1,) * self.dims)
        return views.reshape(len(x), x.shape[1] * int(np.prod(self.kernel_size)), -1)
