"""Padding and cropping."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from compute.errors import InputError
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.nn.module import sizes
from compute.nn.spatial import Spatial
from compute.spec import Shape

Mode = Literal["constant", "reflect", "replicate", "circular"]


class AxisPadding:
    """Padding of one dimension of an array by `before` and `after` elements; negative numbers cut elements off."""

    def __init__(self, before: int, after: int, mode: Mode, value: float = 0.0) -> None:
        self.before, self.after, self.mode, self.value = before, after, mode, value

    def output_size(self, size: int) -> int:
        """The size of the padded dimension.

        Raises:
            InputError: nothing is left of it, or it is too short for this mode.
        """
        limit = {"reflect": size - 1, "circular": size}.get(self.mode)
        if limit is not None and max(self.before, self.after) > limit:
            raise InputError(f"a dimension of size {size} is too short for a {self.mode} padding of more than {limit}")
        if size + self.before + self.after < 1:
            raise InputError(f"nothing is left of a dimension of size {size}")
        return size + self.before + self.after

    def sources(self, size: int) -> NDArray[np.int64]:
        """For each padded element which one it is of; beyond 0..size - 1 for a constant."""
        index = np.arange(-self.before, size + self.after)
        if self.mode == "reflect":
            index = np.abs(index)
            return np.where(index >= size, 2 * (size - 1) - index, index)
        if self.mode == "replicate":
            return np.clip(index, 0, size - 1)
        return index % size if self.mode == "circular" else index

    def inner(self, size: int) -> tuple[slice, slice]:
        """Where the elements that stay lie in the padded and in the original dimension."""
        start = min(max(0, -self.before), size)
        stop = max(start, min(size, size + self.after))
        return slice(start + self.before, stop + self.before), slice(start, stop)

    def forward(self, x: Array, axis: int) -> Array:
        """x padded along `axis`."""
        if self.mode != "constant":
            return np.take(x, self.sources(x.shape[axis]), axis=axis)
        size = x.shape[axis]
        y = np.full((*x.shape[:axis], self.output_size(size), *x.shape[axis + 1 :]), self.value, dtype=np.float32)
        there, here = self.inner(size)
        np.moveaxis(y, axis, 0)[there] = np.moveaxis(x, axis, 0)[here]
        return y

    def backward(self, grad_y: Array, axis: int, size: int) -> Array:
        """The gradient for x, of `size` elements along `axis`."""
        grad = np.zeros((*grad_y.shape[:axis], size, *grad_y.shape[axis + 1 :]), dtype=np.float32)
        target, source = np.moveaxis(grad, axis, 0), np.moveaxis(grad_y, axis, 0)
        there, here = self.inner(size)
        target[here] = source[there]
        if self.mode != "constant":
            elements = self.sources(size)
            for place in range(len(source)):
                if not there.start <= place < there.stop:
                    target[elements[place]] += source[place]
        return grad


class Padded(UnaryLayer):
    """Base of all paddings and croppings."""

    def paddings(self, rank: int) -> dict[int, AxisPadding]:
        """The padded dimensions of a sample of `rank` dimensions.

        Raises:
            InputError: samples of this rank do not fit.
        """
        raise NotImplementedError

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = list(input_shape)
        for dim, padding in self.paddings(len(shape)).items():
            shape[dim] = padding.output_size(shape[dim])
        return tuple(shape)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        for dim, padding in self.paddings(x.ndim - 1).items():
            x = padding.forward(x, dim + 1)
        return x

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        for dim, padding in reversed(self.paddings(x.ndim - 1).items()):
            grad_y = padding.backward(grad_y, dim + 1, x.shape[dim + 1])
        return grad_y


class Padding(Padded):
    """BigDL's Padding: `pad` more elements `value` along one dimension of the sample, before it where pad is negative.

    Args:
        dim: dimension of the sample, from 0; negative from the end.
    """

    def __init__(self, dim: int, pad: int, value: float = 0.0, name: str | None = None) -> None:
        super().__init__(name)
        self.dim, self.pad, self.value = dim, pad, float(value)

    def paddings(self, rank: int) -> dict[int, AxisPadding]:
        if not -rank <= self.dim < rank:
            raise InputError(f"the samples have no dimension {self.dim}")
        return {self.dim % rank: AxisPadding(max(0, -self.pad), max(0, self.pad), "constant", self.value)}


class SpatialPadding(Spatial, Padded):
    """Base of paddings of (channels, *size) samples."""

    mode: ClassVar[Mode]

    def __init__(self, padding: int | tuple[int, ...], name: str | None = None) -> None:
        super().__init__(name)
        self.padding = sizes(self.kind, "padding", padding, 2 * self.rank, -(2**31))
        self.value = 0.0

    def paddings(self, rank: int) -> dict[int, AxisPadding]:
        self.check((1,) * rank)
        pairs = zip(self.padding[::2], self.padding[1::2], strict=True)
        return {rank - 1 - i: AxisPadding(*pair, self.mode, self.value) for i, pair in enumerate(pairs)}


_DOC = """

    Args:
        padding: one number for all sides, or two for each dimension, the last dimension first, as in torch.nn:
            (left, right), (left, right, top, bottom) or (left, right, top, bottom, front, back). Negative ones cut off.
    """


class ConstantPad(SpatialPadding):
    """Base of ConstantPad1d, ConstantPad2d and ConstantPad3d."""

    mode: ClassVar[Mode] = "constant"

    def __init__(self, padding: int | tuple[int, ...], value: float, name: str | None = None) -> None:
        super().__init__(padding, name)
        self.value = float(value)


class ConstantPad1d(ConstantPad):
    __doc__ = "Pads (channels, length) samples with `value`." + _DOC
    rank: ClassVar[int] = 1


class ConstantPad2d(ConstantPad):
    __doc__ = "Pads (channels, height, width) samples with `value`." + _DOC
    rank: ClassVar[int] = 2


class ConstantPad3d(ConstantPad):
    __doc__ = "Pads (channels, depth, height, width) samples with `value`." + _DOC
    rank: ClassVar[int] = 3


class ZeroPad1d(SpatialPadding):
    __doc__ = "Pads (channels, length) samples with zeros." + _DOC
    rank: ClassVar[int] = 1
    mode: ClassVar[Mode] = "constant"


class ZeroPad2d(SpatialPadding):
    __doc__ = "Pads (channels, height, width) samples with zeros." + _DOC
    rank: ClassVar[int] = 2
    mode: ClassVar[Mode] = "constant"


class ZeroPad3d(SpatialPadding):
    __doc__ = "Pads (channels, depth, height, width) samples with zeros." + _DOC
    rank: ClassVar[int] = 3
    mode: ClassVar[Mode] = "constant"


class ReflectionPad1d(SpatialPadding):
    __doc__ = "Pads (channels, length) samples with their mirror image, the edge not repeated." + _DOC
    rank: ClassVar[int] = 1
    mode: ClassVar[Mode] = "reflect"


class ReflectionPad2d(SpatialPadding):
    __doc__ = "Pads (channels, height, width) samples with their mirror image, the edge not repeated." + _DOC
    rank: ClassVar[int] = 2
    mode: ClassVar[Mode] = "reflect"


class ReflectionPad3d(SpatialPadding):
    __doc__ = "Pads (channels, depth, height, width) samples with their mirror image, the edge not repeated." + _DOC
    rank: ClassVar[int] = 3
    mode: ClassVar[Mode] = "reflect"


class ReplicationPad1d(SpatialPadding):
    __doc__ = "Pads (channels, length) samples with their edge." + _DOC
    rank: ClassVar[int] = 1
    mode: ClassVar[Mode] = "replicate"


class ReplicationPad2d(SpatialPadding):
    __doc__ = "Pads (channels, height, width) samples with their edge." + _DOC
    rank: ClassVar[int] = 2
    mode: ClassVar[Mode] = "replicate"


class ReplicationPad3d(SpatialPadding):
    __doc__ = "Pads (channels, depth, height, width) samples with their edge." + _DOC
    rank: ClassVar[int] = 3
    mode: ClassVar[Mode] = "replicate"


class CircularPad1d(SpatialPadding):
    __doc__ = "Pads (channels, length) samples with their other end." + _DOC
    rank: ClassVar[int] = 1
    mode: ClassVar[Mode] = "circular"


class CircularPad2d(SpatialPadding):
    __doc__ = "Pads (channels, height, width) samples with their other end." + _DOC
    rank: ClassVar[int] = 2
    mode: ClassVar[Mode] = "circular"


class CircularPad3d(SpatialPadding):
    __doc__ = "Pads (channels, depth, height, width) samples with their other end." + _DOC
    rank: ClassVar[int] = 3
    mode: ClassVar[Mode] = "circular"
