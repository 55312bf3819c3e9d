"""Layers that only name the same elements differently. They take float32 and int64 alike."""

from __future__ import annotations

import math

from compute.errors import InputError
from compute.nn.dims import axis_of, check_dim
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.spec import Shape, Specs, TensorSpec


class AnyType(UnaryLayer):
    """Base of layers that move elements about, whatever they are: the output's type is the input's."""

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        return (TensorSpec(self.output_shape(inputs[0].shape), inputs[0].dtype),)


class Renaming(AnyType):
    """Base of layers whose output is the input's memory in another shape."""

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return x.reshape(len(x), *self.output_shape(x.shape[1:]))

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return grad_y.reshape(x.shape)


class Identity(Renaming):
    """y = x. float32 or int64 of any shape. torch.nn.Identity."""


class Contiguous(Identity):
    """y = x, for models that have it before a View. Any shape. BigDL's Contiguous; no layer here needs it."""


class Reshape(Renaming):
    """Gives each sample the shape `shape`; one size may be -1 and follows from the others. float32 or int64."""

    def __init__(self, *shape: int | tuple[int, ...], name: str | None = None) -> None:
        super().__init__(name)
        self.shape = _sizes(self.kind, shape, least=1)

    def wanted(self, input_shape: Shape) -> Shape:
        """The sizes, of which one may be -1."""
        return self.shape

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = self.wanted(input_shape)
        size = math.prod(input_shape)
        known = math.prod(s for s in shape if s != -1)
        if size % known or (-1 not in shape and size != known):
            raise InputError(f"cannot give {size} elements the shape {self.shape}")
        return tuple(size // known if s == -1 else s for s in shape)


class View(Reshape):
    """Reshape under BigDL's and Torch's other name: gives each sample the shape `shape`. float32 or int64."""


class InferReshape(Reshape):
    """Reshape in which a size of 0 means that of the input's same dimension. float32 or int64. BigDL's InferReshape."""

    def __init__(self, *shape: int | tuple[int, ...], name: str | None = None) -> None:
        super(Reshape, self).__init__(name)
        self.shape = _sizes(self.kind, shape, least=0)

    def wanted(self, input_shape: Shape) -> Shape:
        if any(size == 0 and dim >= len(input_shape) for dim, size in enumerate(self.shape)):
            raise InputError(f"has no dimension for each 0 of {self.shape}")
        return tuple(input_shape[dim] if size == 0 else size for dim, size in enumerate(self.shape))


class Flatten(Reshape):
    """Gives each sample one dimension. float32 or int64."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(-1, name=name)


class Unflatten(Renaming):
    """Splits dimension `dim` of the sample into several, one may be -1. float32 or int64. torch.nn.Unflatten."""

    def __init__(self, dim: int, unflattened_size: tuple[int, ...], name: str | None = None) -> None:
        super().__init__(name)
        self.dim = check_dim(self.kind, dim)
        self.unflattened_size = _sizes(self.kind, (tuple(unflattened_size),), least=1)

    def output_shape(self, input_shape: Shape) -> Shape:
        dim = axis_of(self.dim, len(input_shape)) - 1
        inner = Reshape(self.unflattened_size).output_shape((input_shape[dim],))
        return (*input_shape[:dim], *inner, *input_shape[dim + 1 :])


class Squeeze(Renaming):
    """Drops dimension `dim` of the sample if its size is 1, or all such without `dim`. float32 or int64."""

    def __init__(self, dim: int | None = None, name: str | None = None) -> None:
        super().__init__(name)
        self.dim = None if dim is None else check_dim(self.kind, dim)

    def output_shape(self, input_shape: Shape) -> Shape:
        dropped = None if self.dim is None else axis_of(self.dim, len(input_shape)) - 1
        return tuple(size for dim, size in enumerate(input_shape) if size != 1 or dropped not in (None, dim))


class Unsqueeze(Renaming):
    """Adds a dimension of size 1 at `dim` of the sample. float32 or int64. torch.unsqueeze."""

    def __init__(self, dim: int, name: str | None = None) -> None:
        super().__init__(name)
        self.dim = check_dim(self.kind, dim)

    def output_shape(self, input_shape: Shape) -> Shape:
        dim = axis_of(self.dim, len(input_shape) + 1) - 1
        return (*input_shape[:dim], 1, *input_shape[dim:])


def _sizes(kind: str, shape: tuple[int | tuple[int, ...], ...], least: int) -> tuple[int, ...]:
    """One flat tuple of sizes; InputError unless each is at least `least`, but for one that may be -1."""
    sizes: list[int] = []
    for item in shape:
        sizes.extend([item] if isinstance(item, int) else item)
    if not sizes or not all(isinstance(s, int) and (s >= least or s == -1) for s in sizes) or sizes.count(-1) > 1:
        raise InputError(f"{kind} needs whole numbers of at least {least} (one may be -1), got {tuple(sizes)}")
    return tuple(sizes)
