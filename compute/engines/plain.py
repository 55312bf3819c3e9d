"""The engine `numpy`: the layers' own formulas, one after the other. The oracle of the other engines' tests."""

from __future__ import annotations

from compute.engines.blas_threads import limit_numpy_threads
from compute.engines.layer_call import LayerCall, views
from compute.graph import Graph
from compute.memory import aligned
from compute.nn.layer import Array, Key, Pass
from compute.program import Engine, Final, Needed, Plan, Program
from compute.spec import Arrays


class PlainPlan(Plan):
    """Layers in the graph's order."""

    def __init__(self, program: Program, graph: Graph, batch: int) -> None:
        self._graph, self._program = graph, program
        self._pass = Pass()
        self._needed = graph.needs_gradient()
        self._calls = [
            LayerCall(
                node,
                graph,
                batch,
                self._pass,
                self._needed,
                views(node, program.parameters),
                views(node, program.gradients),
            )
            for node in graph.nodes
        ]
        self._grad_outputs = tuple(aligned(graph.values[value].shape(batch)) for value in graph.outputs)
        self._outputs: Arrays = ()

    def forward(self, inputs: Arrays, key: Key, training: bool, share: float, needed: Needed) -> Arrays:
        needed(0, self._program.parameters.size)
        self._pass.key, self._pass.training, self._pass.share = key, training, share
        arrays = dict(zip(self._graph.inputs, inputs, strict=True))
        for call in self._calls:
            outputs = call.forward(tuple(arrays[source] for source in call.node.sources))
            arrays.update(zip(call.node.outputs, outputs, strict=True))
        self._outputs = tuple(arrays[value] for value in self._graph.outputs)
        return self._outputs

    def backward(self, targets: Arrays, scale: float, final: Final) -> float:
        loss = self._program.criterion.loss_and_gradient(self._outputs, targets, scale, self._grad_outputs)
        grads: dict[int, Array] = {}
        for value, grad in zip(self._graph.outputs, self._grad_outputs, strict=True):
            grads[value] = grads[value] + grad if value in grads else grad
        for parameter in self._graph.parameters:
            if parameter.spec.kind == "weight":
                self._program.gradients[parameter.span] = 0.0
        for call in reversed(self._calls):
            if not any(self._needed[output] for output in call.node.outputs):
                continue
            if not any(output in grads for output in call.node.outputs):
                continue
            for source, grad_x in zip(call.node.sources, call.backward(grads), strict=True):
                if grad_x is not None and self._needed[source]:
                    grads[source] = grads[source] + grad_x if source in grads else grad_x
            for output in call.node.outputs:
                grads.pop(output, None)
        final(0, self._program.gradients.size)
        return loss


class PlainEngine(Engine):
    """Reads the parameters where they lie, so a change of them needs nothing."""

    def plan(self, graph: Graph, batch: int, training: bool) -> Plan:
        return PlainPlan(self.program, graph, batch)

    def parameters_changed(self) -> None:
        pass


def make(program: Program, threads: int) -> Engine:
    """The engine for a program."""
    limit_numpy_threads(threads)
    return PlainEngine(program, threads)
