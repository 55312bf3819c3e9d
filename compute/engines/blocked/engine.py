"""The stages for oneDNN's own layouts: `BlockedEngine`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.activation import ActivationStage, activation, fusable
from compute.engines.blocked.attention import AttentionStage
from compute.engines.blocked.convolution import ConvolutionStage, TransposedConvolutionStage, fast
from compute.engines.blocked.dropout import DropoutStage
from compute.engines.blocked.embedding import EmbeddingStage
from compute.engines.blocked.group_norm import GroupNormStage
from compute.engines.blocked.layer_norm import LayerNormStage
from compute.engines.blocked.layout import Layout
from compute.engines.blocked.linear import LinearStage
from compute.engines.blocked.local_response_norm import LocalResponseNormStage
from compute.engines.blocked.normalization import BatchNormStage
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.blocked.pooling import PoolingStage
from compute.engines.blocked.primitive_engine import PrimitiveEngine
from compute.engines.blocked.recurrent import RecurrentStage
from compute.engines.blocked.reshape import ReshapeStage
from compute.engines.blocked.softmax import SoftmaxStage
from compute.engines.blocked.table import ConcatStage, SumStage
from compute.engines.dnnl.constants import BF16, DST, SRC, SRC_1, Binary
from compute.engines.stage import LogSoftmaxStage, over_last
from compute.engines.staged import LayerStage, Stage, StagedPlan
from compute.engines.tensor import ROWS, Tensor
from compute.errors import InputError
from compute.graph import Graph, Node
from compute.nn.adaptive_pooling import AdaptivePool
from compute.nn.conv import Convolution
from compute.nn.conv_transpose import TransposedConvolution
from compute.nn.fold import Fold
from compute.nn.group_norm import InstanceNorm
from compute.nn.pooling import Pool
from compute.program import Plan, Program


class BlockedEngine(PrimitiveEngine):
    """Plans of oneDNN's primitives."""

    def __init__(self, program: Program, threads: int) -> None:
        super().__init__(program, threads)
        if program.precision == "bf16":
            check_bf16(dnnl.Api())

    def plan(self, graph: Graph, batch: int, training: bool) -> Plan:
        self.prepare()
        return BlockedPlan(self, graph, batch, training)

    def groups(self, graph: Graph) -> Iterable[tuple[Node, ...]]:
        return grouped(graph)

    def stage(self, plan: StagedPlan, nodes: tuple[Node, ...], inputs: tuple[Tensor, ...]) -> Stage:
        assert isinstance(plan, BlockedPlan)
        try:
            return _stage(plan, nodes, inputs)
        except dnnl.Unimplemented:
            if len(nodes) == 1:
                return LayerStage(plan, nodes[0], inputs)
            return _Chain(plan, nodes, inputs)

    def convert(self, plan: StagedPlan, tensor: Tensor, layout: Hashable) -> Tensor:
        assert isinstance(plan, BlockedPlan)
        if layout == ROWS:
            target = plan.rows(plan.describe(tensor).dims)
        elif isinstance(layout, Layout):
            target = plan.tensor(layout.descriptor)
        else:
            raise ValueError(f"cannot convert {tensor.layout} to {layout}")
        plan.reorder(tensor, target)
        return target

    def add(self, plan: StagedPlan, left: Tensor, right: Tensor, total: Tensor) -> None:
        assert isinstance(plan, BlockedPlan)
        data = plan.describe(left)
        operation = dnnl.binary(plan.api, Binary.ADD, data, data, data)
        plan.run(operation, {SRC: left, SRC_1: right, DST: total})


def check_bf16(api: dnnl.Api) -> None:
    """Raises InputError unless oneDNN has kernels for bfloat16 on this processor."""
    square = api.strided((64, 64), dtype=BF16)
    try:
        fast(dnnl.matmul(api, square, square, None, square))
    except dnnl.Unimplemented:
        raise InputError(
            'oneDNN has no fast kernels for bfloat16 on this processor (they take AVX-512); use precision="fp32"'
        ) from None


class _Chain(Stage):
    """Nodes of a group that has no kernel as a whole, one after the other."""

    def __init__(self, plan: BlockedPlan, nodes: tuple[Node, ...], inputs: tuple[Tensor, ...]) -> None:
        super().__init__(plan, nodes)
        self._stages: list[Stage] = []
        for node in nodes:
            stage = plan.engine.stage(plan, (node,), inputs)
            self._stages.append(stage)
            inputs = stage.outputs
        self.outputs = inputs

    def backward(self, grads: Iterable[Tensor], needed: Iterable[bool]) -> list[Tensor | None]:
        found: list[Tensor | None] = list(grads)
        for index in reversed(range(len(self._stages))):
            before = list(needed) if index == 0 else [True]
            found = list(self._stages[index].backward([g for g in found if g is not None], before))
        return found


def _stage(plan: BlockedPlan, nodes: tuple[Node, ...], inputs: tuple[Tensor, ...]) -> Stage:
    """The stage of a group. Raises Unimplemented, before it has emitted anything, if oneDNN has no kernel."""
    layer, x = nodes[0].layer, inputs[0] if inputs else None
    if isinstance(layer, nn.ScaledDotProductAttention):
        return AttentionStage(plan, nodes, inputs)  # takes whole numbers as masks
    if isinstance(layer, nn.Embedding) and layer.limit is None and nodes[0].input_specs[0].dtype == "int64":
        return EmbeddingStage(plan, nodes, inputs[0])
    if x is None or any(spec.dtype != "float32" for spec in nodes[0].input_specs):
        return LayerStage(plan, nodes[0], inputs)
    match layer:
        case nn.Reshape() | Fold():
            return ReshapeStage(plan, nodes, x)
        case Convolution():
            return ConvolutionStage(plan, nodes, x)
        case TransposedConvolution():
            return TransposedConvolutionStage(plan, nodes, x)
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.BatchNorm3d():
            return BatchNormStage(plan, nodes, x)
        case nn.GroupNorm() | InstanceNorm():
            return GroupNormStage(plan, nodes, x)
        case Pool() | AdaptivePool():
            return PoolingStage(plan, nodes, x)
        case nn.Linear():
            return LinearStage(plan, nodes, x)
        case nn.CAddTable():
            return SumStage(plan, nodes, inputs)
        case nn.JoinTable():
            return ConcatStage(plan, nodes, inputs)
        case nn.Dropout():
            return DropoutStage(plan, nodes, x)
        case nn.LogSoftmax() if over_last(layer, nodes[0]):
            return LogSoftmaxStage(plan, nodes, x)
        case nn.Softmax() if over_last(layer, nodes[0]):
            return SoftmaxStage(plan, nodes, x)
        case nn.LayerNorm() if len(layer.normalized_shape) == 1:
            return LayerNormStage(plan, nodes, x)
        case nn.LocalResponseNorm() if layer.size % 2:
            return LocalResponseNormStage(plan, nodes, x)
        case nn.Embedding():
            return LinearStage(plan, nodes, x)
        case nn.LSTM() | nn.GRU() | nn.RNN():
            return RecurrentStage(plan, nodes, inputs)
        case _ if activation(layer) is not None:
            return ActivationStage(plan, nodes, x)
        case _:
            return LayerStage(plan, nodes[0], inputs)


def grouped(graph: Graph) -> list[tuple[Node, ...]]:
    """Groups nodes that one stage computes: a kernel with the activation that directly follows it."""
    consumers = graph.consumers
    groups: list[tuple[Node, ...]] = []
    taken: set[int] = set()
    for node in graph.nodes:
        if node.index in taken:
            continue
        group: tuple[Node, ...] = (node,)
        followers = consumers[node.outputs[0]]
        if len(followers) == 1 and node.outputs[0] not in graph.outputs and _fuses(node.layer, followers[0].layer):
            group = (node, followers[0])
        taken.update(member.index for member in group)
        groups.append(group)
    return groups


def _fuses(layer: nn.Module, follower: nn.Module) -> bool:
    match layer:
        case Convolution() | TransposedConvolution() | nn.Linear():
            return fusable(follower)
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.BatchNorm3d() | nn.CAddTable():
            return isinstance(follower, nn.ReLU)
        case _:
            return False
