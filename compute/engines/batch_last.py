"""Engines that keep the batch in the last, fastest dimension: (channels, height, width, n).

Why: LeNet-sized layers have few channels, and kernels that put channels into vector registers then compute mostly
padding. With the batch last, every operation is a matrix product or an element-wise loop over long contiguous rows, no
lane is wasted, and patches (im2col) are gathered by copying whole rows (see `conv_stage`).

Layers that want the batch first (the log-softmax, users' own) get it through a transposition.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from compute import nn
from compute.engines.backend import Backend
from compute.engines.conv_stage import ConvStage, PackedWeights
from compute.engines.stage import (
    ActivationStage,
    LinearStage,
    LogSoftmaxStage,
    PoolStage,
    ReshapeStage,
    RowsLinearStage,
)
from compute.engines.staged import LayerStage, Stage, StagedEngine, StagedPlan
from compute.engines.tensor import BATCH_LAST, ROWS, Tensor
from compute.graph import Graph, Node
from compute.memory import aligned
from compute.nn.fold import Fold
from compute.program import Plan, Program


class BatchLastEngine(StagedEngine):
    """Stages on a library's `Backend`; keeps what all plans share: the weights in the kernels' order."""

    def __init__(self, program: Program, threads: int, backend: Backend) -> None:
        super().__init__(program, threads)
        self.backend = backend
        self._packed: dict[int, PackedWeights] = {}
        self._stale = True

    def packed(self, node: Node) -> PackedWeights:
        """A convolution's weights in the kernels' order, refreshed after `parameters_changed`."""
        place = node.parameters[0].offset
        if place not in self._packed:
            self._packed[place] = PackedWeights(node, self.program)
            self._stale = True
        return self._packed[place]

    def prepare(self) -> None:
        self.backend.begin()
        if self._stale:
            for packed in self._packed.values():
                packed.refresh()
            self._stale = False

    def plan(self, graph: Graph, batch: int, training: bool) -> Plan:
        self.backend.begin()
        return StagedPlan(self, graph, batch, training)

    def parameters_changed(self) -> None:
        self._stale = True

    def groups(self, graph: Graph) -> Iterable[tuple[Node, ...]]:
        return fused(graph)

    def stage(self, plan: StagedPlan, nodes: tuple[Node, ...], inputs: tuple[Tensor, ...]) -> Stage:
        layer, x, backend = nodes[0].layer, inputs[0], self.backend
        match layer:
            case nn.Reshape() | Fold():
                return ReshapeStage(plan, nodes, x)
            case nn.Tanh() | nn.ReLU():
                return ActivationStage(plan, nodes, x, backend)
            case nn.Conv2d() if plain_convolution(layer):
                return ConvStage(plan, nodes, x, backend, self.packed(nodes[0]))
            case nn.MaxPool2d() if plain_pooling(layer):
                return PoolStage(plan, nodes, x, backend)
            case nn.Linear() if len(nodes[0].input_shape) == 1:
                return LinearStage(plan, nodes, x, backend)
            case nn.Linear():
                return RowsLinearStage(plan, nodes, x, backend)
            case nn.LogSoftmax() if layer.dim in (-1, len(nodes[0].input_shape) - 1):
                return LogSoftmaxStage(plan, nodes, x)
            case _:
                return LayerStage(plan, nodes[0], inputs)

    def convert(self, plan: StagedPlan, tensor: Tensor, layout: Hashable) -> Tensor:
        source = tensor.array
        to_last = layout == BATCH_LAST
        if {tensor.layout, layout} != {ROWS, BATCH_LAST}:
            raise ValueError(f"cannot convert {tensor.layout} to {layout}")
        batch = source.shape[0] if to_last else source.shape[-1]
        size = source.size // batch
        if to_last:
            target = aligned((*source.shape[1:], batch))
            call = self.backend.transpose(source.reshape(batch, size), target.reshape(size, batch))
        else:
            target = aligned((batch, *source.shape[:-1]))
            call = self.backend.transpose(source.reshape(size, batch), target.reshape(batch, size))
        plan.emit(call, uses=(source,))
        return Tensor(target, layout)


def fused(graph: Graph) -> list[tuple[Node, ...]]:
    """Groups nodes that one stage computes: a convolution or linear layer with what directly follows it.

    A convolution takes a pooling and an activation, in either order, with it: the activations grow with their argument,
    so the largest element is the same before and after, and they need only be computed for that one.
    """
    consumers = graph.consumers
    groups: list[tuple[Node, ...]] = []
    taken: set[int] = set()
    for node in graph.nodes:
        if node.index in taken:
            continue
        group = [node]
        allowed: list[type[nn.Module] | tuple[type[nn.Module], ...]] = []
        if isinstance(node.layer, nn.Linear) or plain_convolution(node.layer):
            allowed.append((nn.Tanh, nn.ReLU))
        if plain_convolution(node.layer):
            allowed.append(nn.MaxPool2d)
        while allowed:
            followers = consumers[group[-1].outputs[0]]
            if len(followers) != 1 or group[-1].outputs[0] in graph.outputs:
                break
            kind = next((k for k in allowed if isinstance(followers[0].layer, k)), None)
            if kind is None or (isinstance(node.layer, nn.Linear) and len(node.input_shape) > 1):
                break
            if kind is nn.MaxPool2d and not plain_pooling(followers[0].layer):
                break
            allowed.remove(kind)
            group.append(followers[0])
        taken.update(member.index for member in group)
        groups.append(tuple(group))
    return groups


def plain_convolution(layer: nn.Module) -> bool:
    """Whether `ConvStage` computes it."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding == layer.padding_end
    )


def plain_pooling(layer: nn.Module) -> bool:
    """Whether backends pool so."""
    return isinstance(layer, nn.MaxPool2d) and layer.dilation == (1, 1) and not layer.ceil_mode
