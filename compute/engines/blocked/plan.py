"""Plans whose stages run oneDNN's primitives: `BlockedPlan`."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping

from compute.engines.blocked.layout import Layout
from compute.engines.blocked.primitive_engine import PrimitiveEngine
from compute.engines.blocked.weights import PackedWeight
from compute.engines.call import Call as PreparedCall
from compute.engines.dnnl import Api, Descriptor, Memory, Operation, Unimplemented, reorder
from compute.engines.dnnl.constants import BF16, BLOCKED_TAGS, DST, F32, SRC, WORKSPACE, DataType
from compute.engines.staged import Call, Emitted, StagedPlan, run
from compute.engines.tensor import ROWS, Tensor
from compute.graph import Graph
from compute.nn.layer import Array, Key
from compute.program import Needed
from compute.spec import Arrays, Shape


class BlockedPlan(StagedPlan):
    """A plan with what stages need to run primitives.

    Attributes:
        dtype: of activations and their gradients between kernels.
    """

    engine: PrimitiveEngine

    def __init__(self, engine: PrimitiveEngine, graph: Graph, batch: int, training: bool) -> None:
        self.api = Api(engine.scratchpad)
        self.dtype: DataType = BF16 if engine.program.precision == "bf16" else F32
        self._packed: dict[str, dict[int, PackedWeight]] = {}  # by the stage whose calls read it
        super().__init__(engine, graph, batch, training)

    # --- layouts ------------------------------------------------------------------------------------------------------

    def describe(self, tensor: Tensor) -> Descriptor:
        """The descriptor of a tensor."""
        if isinstance(tensor.layout, Layout):
            return tensor.layout.descriptor
        return self.api.strided(tensor.array.shape)

    def layout_of(self, descriptor: Descriptor) -> Hashable:
        """A descriptor as a layout: ROWS where it is that."""
        if descriptor.dtype == F32 and descriptor == self.api.strided(descriptor.dims):
            return ROWS
        return Layout(descriptor)

    def plain(self, dims: Shape) -> Descriptor:
        """Row-major, in the plan's type."""
        return self.api.strided(dims, dtype=self.dtype)

    def any(self, dims: Shape) -> Descriptor:
        """Whatever a primitive likes, in the plan's type."""
        return self.api.any(dims, self.dtype)

    def retyped(self, descriptor: Descriptor, dtype: DataType) -> Descriptor:
        """The same order of elements of another type.

        Raises:
            Unimplemented: the blocks are none that have a name here.
        """
        if descriptor.is_plain:
            return self.api.strided(descriptor.dims, descriptor.strides, dtype)
        return self.api.tagged(descriptor.dims, self._tag(descriptor), dtype)

    def reordered(self, dims: Shape, like: Descriptor) -> Descriptor:
        """Another shape of the same rank and type in the same order of dimensions and blocks.

        Raises:
            Unimplemented: the order is none that has a name here.
        """
        if dims == like.dims:
            return like
        return self.api.tagged(dims, self._tag(like), like.dtype)

    def _tag(self, descriptor: Descriptor) -> str:
        """oneDNN's name of the order of an activation's elements."""
        rank = len(descriptor.dims)
        letters = "abcdefgh"[:rank]
        tags = [letters, "a" + letters[2:] + "b"]
        tags += [tag for tag in BLOCKED_TAGS if tag[0].islower() and len(tag.rstrip("b0123456789")) == rank]
        for tag in tags:
            if self.api.tagged(descriptor.dims, tag, descriptor.dtype) == descriptor:
                return tag
        raise Unimplemented(f"the order of {descriptor!r} has no name here")

    def tensor(self, descriptor: Descriptor) -> Tensor:
        """A tensor on a buffer of its own."""
        layout = self.layout_of(descriptor)
        if layout == ROWS:
            return self.rows(descriptor.dims)
        return Tensor(self.buffer(descriptor.size_bytes), layout)

    def to(self, tensor: Tensor, descriptor: Descriptor) -> Tensor:
        """The tensor in this layout; converted where it has another."""
        return self.convert(tensor, self.layout_of(descriptor))

    def typed(self, tensor: Tensor) -> Tensor:
        """The tensor in the plan's type: as it is, or from ROWS in row-major order."""
        return tensor if self.describe(tensor).dtype == self.dtype else self.to(tensor, self.plain(tensor.array.shape))

    def reshaped(self, tensor: Tensor, dims: Shape) -> Tensor:
        """The same memory under another shape; converted to row-major order first where the layout forbids it."""
        if tensor.layout == ROWS:
            return Tensor(tensor.array.reshape(dims), ROWS, tensor.shared)
        descriptor = self.describe(tensor)
        if not descriptor.is_plain or descriptor != self.api.strided(descriptor.dims, dtype=descriptor.dtype):
            descriptor = self.api.strided(descriptor.dims, dtype=descriptor.dtype)
            return self.reshaped(self.to(tensor, descriptor), dims)
        return Tensor(tensor.array, Layout(self.api.strided(dims, dtype=descriptor.dtype)), tensor.shared)

    def rows_of(self, shape: Shape) -> int:
        """How many rows an array has whose last dimension are columns."""
        return math.prod(shape[:-1])

    def result_dtype(self, value: int) -> DataType:
        """The type in which a kernel gives a value: float32 where only the model's user or a criterion takes it."""
        kinds = {consumer.layer.kind for consumer in self.graph.consumers[value]}
        return self.dtype if kinds - {"LogSoftmax"} else F32

    # --- parameters and calls -----------------------------------------------------------------------------------------

    def weight(
        self,
        parameter: Array,
        dims: Shape,
        descriptor: Descriptor,
        strides: Shape | None = None,
        parts: tuple[int, ...] | None = None,
    ) -> Tensor:
        """A parameter, seen as `dims`, in a kernel's layout; the parameter itself where that is its own.

        Args:
            strides: of the parameter's elements; row-major by default.
            parts: its rows are as many parts, which the kernel wants in this order; None for the same.
        """
        layout = self.layout_of(descriptor)
        if layout == ROWS and strides is None:
            return Tensor(parameter.reshape(dims))
        packed = self.engine.weights.get(parameter, dims, descriptor, strides, parts)
        self._packed.setdefault(self._layers, {})[id(packed)] = packed
        return Tensor(packed.array, Layout(descriptor))

    def weight_gradient(self, gradient: Array, dims: Shape, descriptor: Descriptor) -> Tensor:
        """What a kernel writes the gradient of a parameter to; `store` puts it into its place."""
        return Tensor(gradient.reshape(dims)) if self.layout_of(descriptor) == ROWS else self.tensor(descriptor)

    def store(self, found: Tensor, gradient: Array, dims: Shape) -> None:
        """Emits the copy of a gradient to its place in the flat vector, unless it was written there."""
        target = Tensor(gradient.reshape(dims))
        if found.layout != ROWS:
            self.reorder(found, target)

    def reorder(self, source: Tensor, target: Tensor) -> None:
        """Emits a copy between layouts and types."""
        operation = reorder(self.api, self.describe(source), self.describe(target))
        self.run(operation, {SRC: source, DST: target})

    def extract(self, whole: Tensor, part: Descriptor, target: Tensor) -> None:
        """Emits a copy of a part of a tensor, as `Descriptor.part` describes it."""
        operation = reorder(self.api, part, self.describe(target))
        self.run(operation, {SRC: Tensor(whole.array, Layout(part)), DST: target})

    def run(self, operation: Operation, arguments: Mapping[int, Tensor]) -> None:
        """Emits an operation on these tensors."""
        uses = [tensor.array for tensor in arguments.values()]
        if self.buffers.observing:
            self.emit(_nothing, uses=uses)
            return
        memories = {argument: self._memory(tensor) for argument, tensor in arguments.items()}
        self.emit(operation.bind(memories), uses=uses)

    def _memory(self, tensor: Tensor) -> Memory:
        return self.api.memory(self.describe(tensor), tensor.array)

    def watch(self, wrap: Callable[[Emitted], Call] | None) -> None:
        super().watch(wrap)
        chosen = wrap or (lambda emitted: emitted.call)
        self._refreshes = {
            layers: [chosen(Emitted(self._refresh(weight), layers, "weights")) for weight in packed.values()]
            for layers, packed in self._packed.items()
        }

    def _refresh(self, weight: PackedWeight) -> PreparedCall:
        """The call that brings a weight up to date in its kernel's layout."""
        weights = self.engine.weights
        call = PreparedCall(lambda: weight.refresh(weights.version))
        call.record = weight.record
        return call

    def forward(self, inputs: Arrays, key: Key, training: bool, share: float, needed: Needed) -> Arrays:
        """Asks for each stage's parameters when its turn comes, and only then puts them into the kernels' layouts."""
        self.engine.prepare()
        self._begin_pass(inputs, key, training, share)
        begin = 0
        for end, layers, spans in self._reads:
            run(self._forward[begin:end])
            begin = end
            for span in spans:
                needed(*span)
            run(self._refreshes.get(layers, ()))
        run(self._forward[begin:])
        return self.outputs


def vector(array: Array) -> Tensor:
    """A float32 vector, such as a bias or its gradient, as an argument."""
    return Tensor(array.reshape(-1))


def workspace_of(plan: BlockedPlan, operation: Operation) -> dict[int, Tensor]:
    """What a forward operation leaves for its backward pass, as an argument; empty if nothing."""
    descriptor = operation.workspace
    return {} if descriptor is None else {WORKSPACE: Tensor(plan.buffer(descriptor.size_bytes), Layout(descriptor))}


def _nothing() -> None:
    """Stands for a call where only the lives of buffers are observed."""


