"""The few operations that the batch-last stages are made of; each engine with a fast library provides them.

Every method prepares a call on fixed arrays and returns it: what can be done once is done here, and a training step
then only runs the calls, in order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compute import nn
from compute.engines.staged import Call

Array = NDArray[np.float32]

THREADED_OPERATIONS = 4e6
"""Floating-point operations from which a call is worth several threads: some 50 us of one core. Forking and joining
costs a few microseconds, and far more if a core is taken."""

ELEMENTWISE_OPERATIONS = 16
"""Rough cost of an element in loops that wait for memory, in the operations of a matrix product."""


class Pooling(ABC):
    """A prepared max pooling, on batch-last arrays."""

    forward: list[Call]

    @abstractmethod
    def backward(self, grad_y: Array, grad_x: Array) -> list[Call]:
        """Overwrites grad_x (as x) with the gradient, given that of y and the last forward pass."""


class Backend(ABC):
    """Operations of one library for one program. All arrays are float32."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._kept: list[Array] = []

    def _keep(self, *arrays: Array) -> None:
        """Prepared calls hold addresses only; the arrays must live as long as the program."""
        self._kept.extend(arrays)

    @abstractmethod
    def set_threads(self, threads: int) -> None:
        """How many threads the library's calls from this thread may use from now on."""

    def begin(self) -> None:
        """Before plans are made or calls run: small calls use one thread (see `_sized`)."""
        self.set_threads(1)

    def _sized(self, operations: float, prepare: Callable[[], Call]) -> Call:
        """The call that `prepare` makes, run by all threads if it is worth waking them, by one if not.

        A fixed choice for fixed shapes, since the number of threads decides the order of additions.
        """
        if self.threads == 1 or operations < THREADED_OPERATIONS:
            return prepare()
        # oneDNN plans a primitive for as many threads as there are while it is made.
        self.set_threads(self.threads)
        call = prepare()
        self.set_threads(1)

        def threaded() -> Any:
            self.set_threads(self.threads)
            status = call()
            self.set_threads(1)
            return status

        return threaded

    @abstractmethod
    def gemm(self, a: Array, b: Array, c: Array, accumulate: bool = False) -> Call:
        """c = a @ b, or c += a @ b. Matrices with unit stride in one dimension; c's rows have unit stride."""

    @abstractmethod
    def transpose(self, source: Array, target: Array) -> Call:
        """target (m, n) = source (n, m).T, both C-contiguous."""

    @abstractmethod
    def bias_activation(self, x: Array, bias: Array | None, y: Array, activation: nn.Module | None) -> Call:
        """y = activation(x + bias[:, None]); x and y (rows, m), C-contiguous, may be the same array."""

    @abstractmethod
    def activation_backward(self, activation: nn.Module, y: Array, grad_y: Array, grad_x: Array) -> Call:
        """grad_x = grad_y * activation'(x), given y = activation(x); grad_y and grad_x may be the same array."""

    @abstractmethod
    def row_sums(self, x: Array, sums: Array) -> Call:
        """sums (rows,) of x (rows, m), C-contiguous."""

    @abstractmethod
    def max_pool(self, layer: nn.MaxPool2d, x: Array, y: Array, training: bool) -> Pooling:
        """Pools x (C, H, W, n) into y (C, OH, OW, n)."""



def copy(source: Array, target: Array) -> Call:
    """A call that copies between arrays of one shape and any strides."""
    return partial(np.copyto, target, source)


def fill_zero(target: Array) -> Call:
    """A call that clears an array."""
    return partial(target.fill, 0.0)


def strides_of(matrix: Array) -> tuple[bool, int]:
    """(transposed, leading dimension in elements) as BLAS wants it.

    Raises:
        ValueError: no dimension has unit stride.
    """
    row_stride, column_stride = (stride // 4 for stride in matrix.strides)
    rows, columns = matrix.shape
    # The stride of a dimension of size 1 means nothing.
    if column_stride == 1 or columns == 1:
        return False, row_stride if rows > 1 else columns
    if row_stride == 1 or rows == 1:
        return True, column_stride
    raise ValueError(f"a matrix of shape {matrix.shape} and strides {matrix.strides} has no unit stride")
