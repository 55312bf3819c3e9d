"""Engines whose plans are lists of prepared calls, made once by stages.

A stage stands for a layer or for several that are computed together. When a plan is made, each stage in turn says in
which layout it wants its inputs and emits the calls that compute its outputs; then, from the last to the first, the
calls of the backward pass. A training step only runs the calls. Layers that an engine has no stage for run by their own
formulas (`LayerStage`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compute.arena import Arena
from compute.engines.buffers import Buffers
from compute.engines.layer_call import LayerCall, views
from compute.engines.split_loss import SplitLoss
from compute.engines.tensor import ROWS, Tensor
from compute.graph import Graph, Node
from compute.memory import aligned
from compute.nn.criterion import Criterion
from compute.nn.layer import Arrayed, Key, Pass
from compute.program import Engine, Final, Needed, Plan, Program
from compute.spec import Arrays, Shape

Call = Callable[[], Any]
"""A prepared operation. It returns 0 or None, or the library's error code."""

Span = tuple[int, int]
"""Range [begin, end) of elements of the flat vector."""

LossGradient = Callable[[Arrays, float], float]
"""Computes the gradient of scale * sum of losses, given the targets and the scale; returns the plain sum."""


def numpy_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Call:
    """The call of a numpy function with `out`, whose result, the array, is no error code."""

    def call() -> None:
        function(*args, **kwargs)

    return call


class Emitted(NamedTuple):
    """A call and where it belongs, for profiles."""

    call: Call
    layers: str
    phase: str


class Stage(ABC):
    """Some layers that are computed together, for one plan. The constructor emits the forward calls.

    Attributes:
        outputs: of the last of the nodes.
        reads_outputs: whether the backward calls read them, or others may that share their memory.
        reads_statistics: whether any of its calls reads those of its nodes' parameters that are statistics.
    """

    reads_outputs = True
    reads_statistics = True

    def __init__(self, plan: StagedPlan, nodes: Sequence[Node]) -> None:
        self.plan = plan
        self.nodes = tuple(nodes)
        self.outputs: tuple[Tensor, ...] = ()

    @abstractmethod
    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        """Emits the calls that compute the parameters' gradients and, where needed, those of the inputs.

        Args:
            grads: of the outputs, in any layout; those not shared may be overwritten.
            needed: for each input, whether its gradient is.

        Returns:
            The gradient of each input, None where not needed. One that is returned twice must be marked as shared.
        """

    def fused_loss(self, criterion: Criterion) -> tuple[Tensor, LossGradient] | None:
        """For the last stage: the gradient of its input with the criterion's included, and what computes it."""
        return None


class StagedEngine(Engine):
    """Makes staged plans; subclasses choose the stages and know their layouts.

    Attributes:
        arena: the memory that plans' buffers share, since no two plans run at the same time.
        pool: as many threads as were granted, for what is computed by numpy; None if one was.
        declares_uses: whether all stages say which arrays their calls use; otherwise buffers last as long as the plan.
    """

    declares_uses = False

    def __init__(self, program: Program, threads: int) -> None:
        super().__init__(program, threads)
        self.arena = Arena()
        self.pool: Executor | None = None
        if threads > 1:
            self.pool = ThreadPoolExecutor(threads, thread_name_prefix="compute")

    @abstractmethod
    def groups(self, graph: Graph) -> Iterable[tuple[Node, ...]]:
        """The graph's nodes in order, those together that one stage computes.

        A group takes what its nodes take from outside, in order; only its last node's outputs are seen outside.
        """

    @abstractmethod
    def stage(self, plan: StagedPlan, nodes: tuple[Node, ...], inputs: tuple[Tensor, ...]) -> Stage:
        """The stage of a group."""

    @abstractmethod
    def convert(self, plan: StagedPlan, tensor: Tensor, layout: Hashable) -> Tensor:
        """A tensor of another layout; emits the call that fills it."""

    def add(self, plan: StagedPlan, left: Tensor, right: Tensor, total: Tensor) -> None:
        """Emits total = left + right; all three have one layout, and total may be left."""
        call = numpy_call(np.add, left.array, right.array, out=total.array)
        plan.emit(call, uses=(left.array, right.array, total.array))

    @abstractmethod
    def prepare(self) -> None:
        """Before plans are made and before every pass."""


class StagedPlan(Plan):
    """Stages for one batch size and their calls in order."""

    def __init__(self, engine: StagedEngine, graph: Graph, batch: int, training: bool) -> None:
        self.engine = engine
        self.program: Program = engine.program
        self.graph, self.batch, self.training = graph, batch, training
        self.current = Pass()
        self.needed = graph.needs_gradient() if training else [False] * len(graph.values)
        uses: dict[int, int] = {}
        for node in graph.nodes:
            uses[id(node.layer)] = uses.get(id(node.layer), 0) + 1
        self._shared_layers = {identity for identity, count in uses.items() if count > 1}
        self.buffers = Buffers(engine.arena)
        self._build()
        if self.buffers.taken:
            # Now it is known how long each buffer is used: everything once more, in memory that buffers share.
            self.buffers = self.buffers.placed()
            self._build()

    def _build(self) -> None:
        """Has every stage emit its calls."""
        graph, batch, engine = self.graph, self.batch, self.engine
        self._emitted: list[Emitted] = []
        self._layers, self._phase = "", "forward"
        self._converted: dict[tuple[int, Hashable], Tensor] = {}
        self._kept_alive: list[Tensor] = []
        self._partial_gradients: dict[int, Arrayed] = {}
        self._tensors: dict[int, Tensor] = {}
        for value in graph.inputs:
            dtype = np.dtype(graph.values[value].spec.dtype)
            self._tensors[value] = Tensor(aligned(graph.values[value].shape(batch), dtype))
        self._inputs = [self._tensors[value].array for value in graph.inputs]
        self._stages: list[tuple[Stage, tuple[int, ...]]] = []
        self._reads: list[tuple[int, str, list[Span]]] = []  # after so many forward calls: the stage and what it reads
        for nodes in engine.groups(graph):
            self._layers = "+".join(node.name for node in nodes)
            sources = outside_sources(nodes)
            before = len(self._emitted)
            stage = engine.stage(self, nodes, tuple(self._tensors[source] for source in sources))
            self._stages.append((stage, sources))
            if spans := read_spans(stage):
                self._reads.append((before, self._layers, spans))
            self._tensors.update(zip(nodes[-1].outputs, stage.outputs, strict=True))
        self._layers = "outputs"
        self.outputs = tuple(self.convert(self._tensors[value], ROWS).array for value in graph.outputs)
        self.forward_calls, self._emitted = self._emitted, []
        for array in self.outputs:
            self.buffers.keep(array)
        self._grads: dict[int, Tensor] = {}
        self._final: list[tuple[int, list[Span]]] = []  # after so many backward calls: which gradients are final
        if self.training:
            self._phase = "backward"
            self._plan_backward()
        self.backward_calls, self._emitted = self._emitted, []
        self.watch(None)

    # --- for stages, while the plan is made ---------------------------------------------------------------------------

    def emit(self, *calls: Call, uses: Iterable[NDArray[Any]] = ()) -> None:
        """Appends calls of the stage that is being planned.

        Args:
            uses: the arrays that they read or write, as far as these may lie in memory from `buffer`. Other calls may
                use that memory before the first and after the last call that uses an array.
        """
        self._emitted += [Emitted(call, self._layers, self._phase) for call in calls]
        self.buffers.clock += len(calls)
        for array in uses:
            self.buffers.use(array)

    def convert(self, tensor: Tensor, layout: Hashable) -> Tensor:
        """The tensor in a layout; emits the conversion where it is another, once for each value."""
        if tensor.layout == layout:
            return tensor
        key = (id(tensor), layout)
        if key not in self._converted:
            # Both are kept: the key holds as long as the tensor lives.
            self._converted[key] = converted = self.engine.convert(self, tensor, layout)
            # Whoever else reads the tensor may read the same copy.
            converted.shared = tensor.shared
            self._kept_alive.append(tensor)
        return self._converted[key]

    def empty(self, shape: Shape, dtype: Any = np.float32) -> NDArray[Any]:
        """A buffer, C-contiguous and aligned; zeros at first."""
        return aligned(shape, np.dtype(dtype))

    def buffer(self, size_bytes: int) -> NDArray[np.uint8]:
        """A buffer whose content lasts from the first to the last emitted call that uses it; undefined at first."""
        return self.buffers.take(size_bytes) if self.engine.declares_uses else aligned((size_bytes,), np.uint8)

    def rows(self, shape: Shape) -> Tensor:
        """A tensor in ROWS on such a buffer."""
        return Tensor(self.buffer(4 * math.prod(shape)).view(np.float32).reshape(shape))

    def like(self, tensor: Tensor) -> Tensor:
        """A tensor of the same shape, type and layout on such a buffer."""
        array = tensor.array
        return Tensor(self.buffer(array.nbytes).view(array.dtype).reshape(array.shape), tensor.layout)

    def overwritable(self, grad: Tensor) -> Tensor:
        """The gradient itself if it may be overwritten, else a new tensor like it."""
        return self.like(grad) if grad.shared else grad

    def shape(self, value: int) -> Shape:
        """Of a value's array in ROWS."""
        return self.graph.values[value].shape(self.batch)

    def parameters(self, node: Node) -> Arrayed:
        """A node's parameters by their name within the layer: views of the flat vector."""
        return views(node, self.program.parameters)

    def gradients(self, node: Node) -> Arrayed:
        """Where a stage writes the gradients of its node's parameters, by their name within the layer."""
        if id(node.layer) not in self._shared_layers:
            return views(node, self.program.gradients)
        if node.index not in self._partial_gradients:
            self._partial_gradients[node.index] = {p.spec.name: aligned(tuple(p.spec.shape)) for p in node.parameters}
        return self._partial_gradients[node.index]

    # --- the plan -----------------------------------------------------------------------------------------------------

    def _plan_backward(self) -> None:
        """Prepares the backward calls, from the last stage to the first that has trained parameters before it."""
        graph = self.graph
        self._plan_loss()
        self._layers = "shared weights"
        for parameter in graph.parameters:
            if id(parameter.layer) in self._shared_layers:
                self.emit(partial(self.program.gradients[parameter.span].fill, 0.0))
        for stage, sources in reversed(self._stages):
            outputs = stage.nodes[-1].outputs
            if stage is self._fused or not any(output in self._grads for output in outputs):
                continue
            if not any(self.needed[output] for output in outputs):
                continue
            self._layers = "+".join(node.name for node in stage.nodes)
            grads = [
                self._grads.pop(output) if output in self._grads else Tensor(aligned(self.shape(output)), shared=True)
                for output in outputs
            ]
            found = stage.backward(grads, [self.needed[source] for source in sources])
            self._accumulate_shared(stage)
            self._known(stage)
            for source, grad in zip(sources, found, strict=True):
                if grad is not None and self.needed[source]:
                    self._add_gradient(source, grad)

        self._final.append((len(self._emitted), gaps(self._final, self.program.gradients.size)))

    def _known(self, stage: Stage) -> None:
        """With the calls emitted so far the gradients of a stage's weights have their values.

        Statistics, and weights that several nodes share, are left for the end.
        """
        spans = [
            (parameter.offset, parameter.offset + parameter.size)
            for node in stage.nodes
            for parameter in node.parameters
            if id(node.layer) not in self._shared_layers and parameter.spec.kind == "weight"
        ]
        if spans:
            self._final.append((len(self._emitted), joined(spans)))

    _loss_gradient: LossGradient
    _wanted: tuple[Arrays, float]
    _loss: float

    def _plan_loss(self) -> None:
        """Where the gradients of the outputs come from."""
        graph, criterion = self.graph, self.program.criterion
        self._fused: Stage | None = None
        stage, sources = self._stages[-1]
        if len(graph.outputs) == 1 and stage.nodes[-1].outputs == graph.outputs and self.needed[graph.outputs[0]]:
            fused = stage.fused_loss(criterion)
            if fused is not None:
                self._fused = stage
                self._grads[sources[0]], self._loss_gradient = fused
                return
        # Over the outputs themselves where nobody needs them any more: of a language model they are large.
        last = criterion.in_place and len(graph.outputs) == 1 and not stage.reads_outputs
        if last and stage.nodes[-1].outputs == graph.outputs and not graph.consumers[graph.outputs[0]]:
            grads = self.outputs
        else:
            grads = tuple(aligned(array.shape) for array in self.outputs)
        for value, grad in zip(graph.outputs, grads, strict=True):
            if self.needed[value]:
                self._add_gradient(value, Tensor(grad))
        self._loss_gradient = SplitLoss(criterion, self.outputs, grads, self.engine.threads, self.engine.pool)

    def _add_gradient(self, value: int, grad: Tensor) -> None:
        """Adds to the gradient of a value that several layers take."""
        known = self._grads.get(value)
        if known is None:
            self._grads[value] = grad
            return
        grad = self.convert(grad, known.layout)
        total = self.overwritable(known)
        self.engine.add(self, known, grad, total)
        self._grads[value] = total

    def _accumulate_shared(self, stage: Stage) -> None:
        for node in stage.nodes:
            if node.index in self._partial_gradients:
                whole = views(node, self.program.gradients)
                for name, part in self._partial_gradients[node.index].items():
                    self.emit(numpy_call(np.add, whole[name], part, out=whole[name]))

    def watch(self, wrap: Callable[[Emitted], Call] | None) -> None:
        """Has every call, the loss's included, replaced by what `wrap` makes of it, for profiles; None undoes it."""
        chosen = wrap or (lambda emitted: emitted.call)
        self._forward = [chosen(emitted) for emitted in self.forward_calls]
        self._backward = [chosen(emitted) for emitted in self.backward_calls]
        self._run_loss = chosen(Emitted(self._compute_loss, "loss", "backward"))

    def forward(self, inputs: Arrays, key: Key, training: bool, share: float, needed: Needed) -> Arrays:
        needed(0, self.program.parameters.size)
        self.engine.prepare()
        self._begin_pass(inputs, key, training, share)
        run(self._forward)
        return self.outputs

    def _begin_pass(self, inputs: Arrays, key: Key, training: bool, share: float) -> None:
        self.current.key, self.current.training, self.current.share = key, training, share
        for buffer, array in zip(self._inputs, inputs, strict=True):
            np.copyto(buffer, array)

    def backward(self, targets: Arrays, scale: float, final: Final) -> float:
        self._wanted = (targets, scale)
        self._run_loss()
        begin = 0
        for end, spans in self._final:
            run(self._backward[begin:end])
            begin = end
            for span in spans:
                final(*span)
        return self._loss

    def _compute_loss(self) -> None:
        self._loss = self._loss_gradient(*self._wanted)


class LayerStage(Stage):
    """A layer by its own formulas, in ROWS."""

    def __init__(self, plan: StagedPlan, node: Node, inputs: Sequence[Tensor]) -> None:
        super().__init__(plan, (node,))
        self._gradients = plan.gradients(node)
        self._call = LayerCall(
            node, plan.graph, plan.batch, plan.current, plan.needed, plan.parameters(node), self._gradients
        )
        self._inputs = tuple(plan.convert(tensor, ROWS).array for tensor in inputs)
        dtypes = [spec.dtype for spec in node.output_specs]
        self.outputs = tuple(
            plan.rows(plan.shape(value)) if dtype == "float32" else Tensor(plan.empty(plan.shape(value), dtype))
            for value, dtype in zip(node.outputs, dtypes, strict=True)
        )
        self._uses = (*self._inputs, *(tensor.array for tensor in self.outputs))
        plan.emit(self._forward, uses=self._uses)

    def _forward(self) -> None:
        for tensor, output in zip(self.outputs, self._call.forward(self._inputs), strict=True):
            np.copyto(tensor.array, output)
        self._call.set_outputs(tuple(tensor.array for tensor in self.outputs))

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        node, plan = self.nodes[0], self.plan
        rows = {value: plan.convert(grad, ROWS).array for value, grad in zip(node.outputs, grads, strict=True)}
        buffers = [plan.rows(x.shape) if wanted else None for x, wanted in zip(self._inputs, needed, strict=True)]

        def call() -> None:
            self._call.clear_gradients()
            for buffer, grad in zip(buffers, self._call.backward(rows), strict=True):
                if buffer is not None and grad is not None:
                    np.copyto(buffer.array, grad)
                elif buffer is not None:
                    buffer.array.fill(0.0)

        arrays = (*rows.values(), *(buffer.array for buffer in buffers if buffer is not None))
        plan.emit(call, uses=(*self._uses, *arrays))
        return buffers


def read_spans(stage: Stage) -> list[Span]:
    """The parameters that a stage's calls read, of either pass."""
    return joined(
        {
            (parameter.offset, parameter.offset + parameter.size)
            for node in stage.nodes
            for parameter in node.parameters
            if stage.reads_statistics or parameter.spec.kind != "statistic"
        }
    )


def outside_sources(nodes: Sequence[Node]) -> tuple[int, ...]:
    """What a group of nodes takes from outside, in order."""
    inside = {output for node in nodes for output in node.outputs}
    return tuple(source for node in nodes for source in node.sources if source not in inside)


def joined(spans: Iterable[Span]) -> list[Span]:
    """Disjoint ranges in rising order, those that touch as one."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and found[-1][1] == begin:
            begin, _ = found.pop()
        found.append((begin, end))
    return found


def gaps(known: Iterable[tuple[int, Iterable[Span]]], size: int) -> list[Span]:
    """What is left of [0, size)."""
    bounds = [0, *(bound for span in joined(span for _, spans in known for span in spans) for bound in span), size]
    return [(begin, end) for begin, end in zip(bounds[::2], bounds[1::2], strict=True) if begin < end]


def run(calls: Sequence[Call]) -> None:
    """Runs prepared calls; raises RuntimeError if a library reports a failure."""
    for call in calls:
        if call():
            raise RuntimeError(f"{call} failed in the engine's library")
