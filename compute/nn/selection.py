"""Layers that reorder or take elements of the sample. Most take float32 and int64 alike."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.dims import axis_of, check_dim
from compute.nn.layer import Array, Arrayed, Layer, LayerContext, UnaryLayer
from compute.nn.reshape import AnyType
from compute.spec import Arrays, Shape, Specs, TensorSpec


class Reordering(AnyType):
    """Base of layers that reorder the sample's dimensions."""

    def order(self, rank: int) -> tuple[int, ...]:
        """For each axis of the output's array the axis of the input's, for samples with `rank` dimensions.

        Raises:
            InputError: the samples have no such dimensions.
        """
        raise NotImplementedError

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[axis - 1] for axis in self.order(len(input_shape))[1:])

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return np.ascontiguousarray(x.transpose(self.order(x.ndim - 1)))

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return np.ascontiguousarray(grad_y.transpose(np.argsort(self.order(x.ndim - 1))))


class Permute(Reordering):
    """Dimension i of the output is dimension dims[i] of the sample. float32 or int64. torch.permute."""

    def __init__(self, *dims: int, name: str | None = None) -> None:
        super().__init__(name)
        self.dims = tuple(check_dim(self.kind, dim) for dim in dims)

    def order(self, rank: int) -> tuple[int, ...]:
        axes = tuple(axis_of(dim, rank) for dim in self.dims)
        if sorted(axes) != list(range(1, rank + 1)):
            raise InputError(f"dims {self.dims} must name each dimension of the samples once")
        return (0, *axes)


class Transpose(Reordering):
    """Swaps pairs of dimensions of the sample, one after the other: Transpose((0, 1), (1, 2)). float32 or int64."""

    def __init__(self, *pairs: tuple[int, int], name: str | None = None) -> None:
        super().__init__(name)
        if not pairs or any(not isinstance(pair, tuple) or len(pair) != 2 for pair in pairs):
            raise InputError(f"Transpose takes pairs of dimensions such as Transpose((0, 1)), got {pairs!r}")
        self.pairs = tuple((check_dim(self.kind, a), check_dim(self.kind, b)) for a, b in pairs)

    def order(self, rank: int) -> tuple[int, ...]:
        axes = list(range(rank + 1))
        for a, b in self.pairs:
            first, second = axis_of(a, rank), axis_of(b, rank)
            axes[first], axes[second] = axes[second], axes[first]
        return tuple(axes)


class Part(AnyType):
    """Base of layers that take a part along dimension `dim` of the sample.

    Attributes:
        keepdim: whether the dimension stays.
    """

    keepdim = True

    def __init__(self, dim: int, name: str | None) -> None:
        super().__init__(name)
        self.dim = check_dim(self.kind, dim)

    def span(self, size: int) -> tuple[int, int]:
        """Start and stop of the part along a dimension of this size.

        Raises:
            InputError: there is no such part.
        """
        raise NotImplementedError

    def _place(self, shape: Shape) -> tuple[int, tuple[slice, ...]]:
        """Axis of the array of samples of this shape, and the index of the part."""
        axis = axis_of(self.dim, len(shape))
        return axis, (slice(None),) * axis + (slice(*self.span(shape[axis - 1])),)

    def output_shape(self, input_shape: Shape) -> Shape:
        axis, index = self._place(input_shape)
        kept = (index[-1].stop - index[-1].start,) if self.keepdim else ()
        return (*input_shape[: axis - 1], *kept, *input_shape[axis:])

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        axis, index = self._place(x.shape[1:])
        return np.ascontiguousarray(x[index] if self.keepdim else x[index].squeeze(axis))

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        axis, index = self._place(x.shape[1:])
        grad_x = np.zeros(x.shape, dtype=np.float32)
        grad_x[index] = grad_y if self.keepdim else np.expand_dims(grad_y, axis)
        return grad_x


class Narrow(Part):
    """Elements start..start+length-1 along dimension `dim` of the sample. float32 or int64. torch.narrow.

    Args:
        start: from 0; negative ones count from the end.
        length: -1 for all up to the end, -2 for all but the last, and so on, as BigDL's.
    """

    def __init__(self, dim: int, start: int, length: int = 1, name: str | None = None) -> None:
        super().__init__(dim, name)
        self.start = check_dim(self.kind, start, "start")
        self.length = check_dim(self.kind, length, "length")

    def span(self, size: int) -> tuple[int, int]:
        start = self.start + size if self.start < 0 else self.start
        stop = size + 1 + self.length if self.length < 0 else start + self.length
        if not 0 <= start < stop <= size:
            raise InputError(f"dimension {self.dim} has no {self.length} elements from {self.start} on")
        return start, stop


class Select(Part):
    """Element `index` along dimension `dim` of the sample, which goes away. float32 or int64. torch.select.

    A negative index counts from the end: Select(0, -1) is the last step of a sequence.
    """

    keepdim = False

    def __init__(self, dim: int, index: int, name: str | None = None) -> None:
        super().__init__(dim, name)
        self.index = check_dim(self.kind, index, "index")

    def span(self, size: int) -> tuple[int, int]:
        if not -size <= self.index < size:
            raise InputError(f"dimension {self.dim} has no element {self.index}")
        return self.index % size, self.index % size + 1


class Flip(AnyType):
    """Reverses the order along dimensions of the sample. float32 or int64. torch.flip; BigDL's Reverse."""

    def __init__(self, *dims: int, name: str | None = None) -> None:
        super().__init__(name)
        if not dims:
            raise InputError(f"{self.kind} needs the dimensions to reverse")
        self.dims = tuple(check_dim(self.kind, dim) for dim in dims)

    def output_shape(self, input_shape: Shape) -> Shape:
        for dim in self.dims:
            axis_of(dim, len(input_shape))
        return input_shape

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return np.ascontiguousarray(np.flip(x, tuple({axis_of(dim, x.ndim - 1) for dim in self.dims})))

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return self.forward(grad_y, parameters, context)


class Reverse(Flip):
    """Reverses the order along one dimension of the sample: BigDL's name for Flip. float32 or int64."""

    def __init__(self, dim: int = 0, name: str | None = None) -> None:
        super().__init__(dim, name=name)


class Masking(UnaryLayer):
    """Gives 0 for the steps of a sequence (times, ...) whose elements all equal mask_value. BigDL's Masking."""

    def __init__(self, mask_value: float = 0.0, name: str | None = None) -> None:
        super().__init__(name)
        self.mask_value = float(mask_value)

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape:
            raise InputError("needs sequences (times, ...)")
        return input_shape

    def _kept(self, x: Array) -> Array:
        kept: Array = (x != np.float32(self.mask_value)).any(axis=tuple(range(2, x.ndim)), keepdims=True)
        return kept

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return x * self._kept(x)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return grad_y * self._kept(x)


class Index(Layer):
    """Elements ids along dimension `dim` of x, for a table of x (..., size, ...) and ids, int64 (k,): (..., k, ...).

    Each sample has ids of its own, from 0; one may come several times. x may be float32 or int64. torch.index_select
    for each sample; BigDL's Index.

    Raises:
        InputError: on training or prediction, an id out of range.
    """

    arity = 2

    def __init__(self, dim: int = 0, name: str | None = None) -> None:
        super().__init__(name)
        self.dim = check_dim(self.kind, dim)

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        x, ids = inputs
        if ids.dtype != "int64" or len(ids.shape) != 1:
            raise InputError("needs a table of x and ids, int64 (k)")
        dim = axis_of(self.dim, len(x.shape)) - 1
        return (TensorSpec((*x.shape[:dim], *ids.shape, *x.shape[dim + 1 :]), x.dtype),)

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        x, ids = inputs
        axis = axis_of(self.dim, x.ndim - 1)
        bad = (ids < 0) | (ids >= x.shape[axis])
        if bad.any():
            raise InputError(f"id {ids[bad][0]} is not in 0..{x.shape[axis] - 1}")
        taken = np.moveaxis(x, axis, 1)[np.arange(len(x))[:, None], ids]
        return (np.ascontiguousarray(np.moveaxis(taken, 1, axis)),)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        x, ids = inputs
        if not context.needed[0]:
            return None, None
        axis = axis_of(self.dim, x.ndim - 1)
        grad_x = np.zeros(x.shape, dtype=np.float32)
        places = np.moveaxis(grad_x, axis, 1), (np.arange(len(x))[:, None], ids)
        np.add.at(*places, np.moveaxis(grad_outputs[0], axis, 1))
        return grad_x, None
