"""Engines that keep the batch in the last, fastest dimension: (channels, height, width, n).

Why: LeNet-sized layers have few channels, and kernels that put channels into vector registers then compute mostly
padding. With the batch last, every operation is a matrix product or an element-wise loop over long contiguous rows, no
lane is wasted, and patches (im2col) are gathered by copying whole rows (see `conv_stage`).

A plan is a list of stages; each fuses some layers and prepares its calls. Layers that want the batch first (the
log-softmax, users' own) get it through a `Transposition`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compute import nn
from compute.engines.backend import Backend, Call
from compute.engines.conv_stage import ConvStage, PackedWeights
from compute.engines.layers import needs_gradient
from compute.engines.stage import (
    ActivationStage,
    CustomStage,
    LinearStage,
    LogSoftmaxStage,
    PoolStage,
    ReshapeStage,
    Stage,
    Transposition,
)
from compute.errors import InputError
from compute.graph import Node
from compute.memory import aligned
from compute.program import Engine, Plan, Program

Array = NDArray[np.float32]


class BatchLastEngine(Engine):
    """Plans of stages on a library's `Backend`; keeps what all plans share: the weights in the kernels' order."""

    def __init__(self, program: Program, threads: int, backend: Backend) -> None:
        super().__init__(program, threads)
        self.backend = backend
        self._packed: dict[int, PackedWeights] = {}
        self._stale = True

    def packed(self, node: Node) -> PackedWeights:
        """A convolution's weights in the kernels' order, refreshed after `parameters_changed`."""
        if node.index not in self._packed:
            self._packed[node.index] = PackedWeights(node, self.program)
            self._stale = True
        return self._packed[node.index]

    def refresh(self) -> None:
        """Brings the packed weights up to date."""
        if self._stale:
            for packed in self._packed.values():
                packed.refresh()
            self._stale = False

    def plan(self, batch: int, training: bool) -> Plan:
        self.backend.begin()
        return BatchLastPlan(self, batch, training)

    def parameters_changed(self) -> None:
        self._stale = True


class BatchLastPlan(Plan):
    """Stages for one batch size and their calls in order."""

    def __init__(self, engine: BatchLastEngine, batch: int, training: bool) -> None:
        self._engine = engine
        self._begin = engine.backend.begin
        program = engine.program
        self._criterion = program.criterion
        self._input = aligned((batch, *program.input_shape))
        self._stages: list[Stage] = []
        self._array, self._batch_last = self._input, False
        for nodes in fused(program.graph.nodes):
            self._add(nodes, batch, training)
        self._want(batch_last=False, batch=batch)
        self.output = self._array.reshape(batch, *program.output_shape)
        self._forward: list[Call] = [call for stage in self._stages for call in stage.forward]
        self._custom = [stage.context for stage in self._stages if isinstance(stage, CustomStage)]
        self._backward: list[Call] = []
        if training:
            self._plan_backward(needs_gradient(program.graph))

    def _add(self, nodes: Sequence[Node], batch: int, training: bool) -> None:
        """Appends the stage of some fused nodes."""
        engine, layer = self._engine, nodes[0].layer
        backend, program = engine.backend, engine.program
        stage: Stage
        if isinstance(layer, nn.Reshape):
            stage = ReshapeStage(nodes, self._array, self._batch_last)
        elif isinstance(layer, nn.Tanh | nn.ReLU):
            stage = ActivationStage(nodes, self._array, backend)
        elif isinstance(layer, nn.Conv2d):
            x = self._want(batch_last=True, batch=batch)
            stage = ConvStage(nodes, x, backend, engine.packed(nodes[0]), program, training)
        elif isinstance(layer, nn.MaxPool2d):
            stage = PoolStage(nodes, self._want(batch_last=True, batch=batch), backend, training)
        elif isinstance(layer, nn.Linear):
            stage = LinearStage(nodes, self._want(batch_last=True, batch=batch), backend, program)
        elif isinstance(layer, nn.LogSoftmax):
            stage = LogSoftmaxStage(nodes, self._want(batch_last=False, batch=batch))
        elif isinstance(layer, nn.CustomLayer):
            stage = CustomStage(nodes, self._want(batch_last=False, batch=batch), program)
        else:
            raise InputError(f"the engines do not know the layer {layer.kind}; derive your own from nn.CustomLayer")
        self._stages.append(stage)
        self._array = stage.y

    def _want(self, batch_last: bool, batch: int) -> Array:
        """The current array in the wanted layout."""
        if batch_last != self._batch_last:
            stage = Transposition(self._array, self._engine.backend, to_last=batch_last)
            self._stages.append(stage)
            self._array, self._batch_last = stage.y, batch_last
        return self._array

    def _plan_backward(self, needed: list[bool]) -> None:
        """Prepares the backward calls, from the last stage to the first that has parameters."""
        self._grad_output = aligned(self.output.shape)
        grad: Array = self._grad_output.reshape(self._stages[-1].y.shape) if self._stages else self._grad_output
        last = self._stages[-1]
        # With NLL behind log-softmax the gradient of the logits is simply softmax minus one-hot.
        self._fused_loss = isinstance(last, LogSoftmaxStage) and type(self._criterion) is nn.NLLLoss
        first_trained = next(
            (i for i, stage in enumerate(self._stages) if any(node.parameters for node in stage.nodes)), None
        )
        if first_trained is None:
            return
        for index in range(len(self._stages) - 1, first_trained - 1, -1):
            stage = self._stages[index]
            need_grad_x = index > first_trained
            if stage is last and self._fused_loss:
                continue
            calls, grad_x = stage.backward(grad, need_grad_x)
            self._backward += calls
            if grad_x is not None:
                grad = grad_x

    def forward(self, x: Array, key: tuple[int, int, int], training: bool) -> Array:
        self._begin()
        self._engine.refresh()
        for context in self._custom:
            context.key, context.training = key, training
        np.copyto(self._input, x)
        run(self._forward)
        return self.output

    def backward(self, target: NDArray[np.int64], scale: float) -> float:
        criterion, outputs, targets, grads = self._criterion, (self.output,), (target,), (self._grad_output,)
        if self._fused_loss and isinstance(criterion, nn.NLLLoss):
            loss = criterion.loss(outputs, targets)
            criterion.logits_gradient(outputs, targets, scale, grads)
        else:
            loss = criterion.loss_and_gradient(outputs, targets, scale, grads)
        run(self._backward)
        return loss


def run(calls: Sequence[Call]) -> None:
    """Runs prepared calls; raises RuntimeError if a library reports a failure."""
    for call in calls:
        if call():
            raise RuntimeError(f"{call} failed in the engine's library")


def fused(nodes: Sequence[Node]) -> list[tuple[Node, ...]]:
    """Cuts a chain of nodes into the groups that a stage computes together.

    A convolution takes along a max pooling and an activation behind it, in either order: both activations grow with
    their argument, so the largest element is the same before and after, and they need only be computed for that one.
    """
    groups: list[tuple[Node, ...]] = []
    index = 0
    while index < len(nodes):
        group = [nodes[index]]
        if isinstance(nodes[index].layer, nn.Conv2d | nn.Linear):
            allowed: list[type[nn.Module] | tuple[type[nn.Module], ...]] = [(nn.Tanh, nn.ReLU)]
            if isinstance(nodes[index].layer, nn.Conv2d):
                allowed.append(nn.MaxPool2d)
            while index + len(group) < len(nodes):
                follower = nodes[index + len(group)]
                kind = next((k for k in allowed if isinstance(follower.layer, k)), None)
                if kind is None:
                    break
                allowed.remove(kind)
                group.append(follower)
        groups.append(tuple(group))
        index += len(group)
    return groups
