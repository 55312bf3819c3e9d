"""Layers that join, take apart and reorder tables."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.dims import axis_of, check_dim
from compute.nn.layer import Array, Arrayed, Layer, LayerContext
from compute.nn.module import Activity, Builder, Module
from compute.spec import Arrays, Shape, Specs, TensorSpec


class JoinTable(Layer):
    """Joins the parts of a table along dimension `dim` of the sample; all float32 or all int64. torch.cat."""

    def __init__(self, dim: int = 0, name: str | None = None) -> None:
        super().__init__(name)
        self.dim = check_dim(self.kind, dim)

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        return (TensorSpec(self.output_shape(*(spec.shape for spec in inputs)), _one_type(inputs)),)

    def output_shape(self, *input_shapes: Shape) -> Shape:
        first = input_shapes[0]
        dim = axis_of(self.dim, len(first)) - 1
        if any(s[:dim] != first[:dim] or s[dim + 1 :] != first[dim + 1 :] for s in input_shapes):
            raise InputError(f"the parts may differ in dimension {self.dim} only")
        return (*first[:dim], sum(shape[dim] for shape in input_shapes), *first[dim + 1 :])

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        return (np.concatenate(inputs, axis=axis_of(self.dim, inputs[0].ndim - 1)),)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        axis = axis_of(self.dim, inputs[0].ndim - 1)
        ends = np.cumsum([x.shape[axis] for x in inputs])
        return tuple(np.split(grad_outputs[0], ends[:-1], axis=axis))


class Pack(Layer):
    """Stacks the parts of a table along a new dimension `dim` of the sample; all float32 or all int64. torch.stack."""

    def __init__(self, dim: int = 0, name: str | None = None) -> None:
        super().__init__(name)
        self.dim = check_dim(self.kind, dim)

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        return (TensorSpec(self.output_shape(*(spec.shape for spec in inputs)), _one_type(inputs)),)

    def output_shape(self, *input_shapes: Shape) -> Shape:
        first = input_shapes[0]
        if any(shape != first for shape in input_shapes):
            raise InputError("the parts must have one shape")
        dim = axis_of(self.dim, len(first) + 1) - 1
        return (*first[:dim], len(input_shapes), *first[dim:])

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        return (np.stack(inputs, axis=axis_of(self.dim, inputs[0].ndim)),)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        parts = np.moveaxis(grad_outputs[0], axis_of(self.dim, inputs[0].ndim), 0)
        return tuple(np.ascontiguousarray(part) for part in parts)


class Splitting(Layer):
    """Base of layers that make a table of one tensor (float32 or int64) by cutting it along dimension `dim`."""

    arity = 1
    keepdim = True

    def __init__(self, dim: int = 0, name: str | None = None) -> None:
        super().__init__(name)
        self.dim = check_dim(self.kind, dim)

    def cuts(self, size: int) -> list[int]:
        """Where the parts begin, but for the first, along a dimension of this size."""
        raise NotImplementedError

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        (spec,) = inputs
        dim = axis_of(self.dim, len(spec.shape)) - 1
        size = spec.shape[dim]
        cuts = self.cuts(size)
        lengths = [end - start for start, end in zip([0, *cuts], [*cuts, size], strict=True)]
        kept = [(length,) if self.keepdim else () for length in lengths]
        return tuple(TensorSpec((*spec.shape[:dim], *middle, *spec.shape[dim + 1 :]), spec.dtype) for middle in kept)

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        table = builder.add(self, sources, path)
        return (table,) if isinstance(table, int) else table

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        axis = axis_of(self.dim, inputs[0].ndim - 1)
        parts = np.split(inputs[0], self.cuts(inputs[0].shape[axis]), axis=axis)
        return tuple(np.ascontiguousarray(part if self.keepdim else part.squeeze(axis)) for part in parts)

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        axis = axis_of(self.dim, inputs[0].ndim - 1)
        join = np.concatenate if self.keepdim else np.stack
        return (join(grad_outputs, axis=axis),)


class SplitTable(Splitting):
    """Table of the slices along dimension `dim` of the sample, which goes away; float32 or int64. torch.unbind."""

    keepdim = False

    def cuts(self, size: int) -> list[int]:
        return list(range(1, size))


class BifurcateSplitTable(Splitting):
    """Table of the two halves along dimension `dim` of the sample; float32 or int64.

    Of an odd size the second half has one more. BigDL's BifurcateSplitTable.
    """

    def cuts(self, size: int) -> list[int]:
        if size < 2:
            raise InputError(f"cannot halve dimension {self.dim} of size {size}")
        return [size // 2]


class TableModule(Module):
    """Base of modules that only rearrange a table while the graph is built; they compute nothing."""

    def rearranged(self, table: tuple[Activity, ...]) -> Activity:
        """The output for a table."""
        raise NotImplementedError

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        if isinstance(sources, int):
            raise InputError(f"{self.name or self.kind} takes a table, not one tensor")
        return self.rearranged(sources)


class SelectTable(TableModule):
    """Part `index` of a table, from 0; negative ones count from the end. Computes nothing."""

    def __init__(self, index: int, name: str | None = None) -> None:
        super().__init__(name)
        self.index = check_dim(self.kind, index, "index")

    def rearranged(self, table: tuple[Activity, ...]) -> Activity:
        if not -len(table) <= self.index < len(table):
            raise InputError(f"{self.name or self.kind}: there is no part {self.index} in a table of {len(table)}")
        return table[self.index]


class NarrowTable(TableModule):
    """Table of `length` parts of a table from part `offset` on. Computes nothing.

    Args:
        offset: from 0; negative ones count from the end.
        length: -1 for all up to the end, -2 for all but the last, and so on, as BigDL's.
    """

    def __init__(self, offset: int, length: int = 1, name: str | None = None) -> None:
        super().__init__(name)
        self.offset = check_dim(self.kind, offset, "offset")
        self.length = check_dim(self.kind, length, "length")

    def rearranged(self, table: tuple[Activity, ...]) -> Activity:
        start = self.offset + len(table) if self.offset < 0 else self.offset
        stop = len(table) + 1 + self.length if self.length < 0 else start + self.length
        if not 0 <= start < stop <= len(table):
            place = self.name or self.kind
            raise InputError(f"{place}: a table of {len(table)} has no {self.length} parts from {self.offset} on")
        return table[start:stop]


class FlattenTable(TableModule):
    """The parts of a table of tables, in order, as one table. Computes nothing."""

    def rearranged(self, table: tuple[Activity, ...]) -> Activity:
        return _flat(table)


def _flat(activity: Activity) -> tuple[int, ...]:
    if isinstance(activity, int):
        return (activity,)
    return tuple(value for part in activity for value in _flat(part))


def _one_type(inputs: Specs) -> str:
    if any(spec.dtype != inputs[0].dtype for spec in inputs):
        raise InputError("the parts must be all float32 or all int64")
    return inputs[0].dtype
