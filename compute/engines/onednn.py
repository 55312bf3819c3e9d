"""The engine `onednn`: plans on oneDNN's own layouts, and with the batch last where there are few channels."""

from __future__ import annotations

from compute.engines.batch_last import BatchLastEngine
from compute.engines.blocked.engine import BlockedEngine
from compute.engines.onednn_backend import OnednnBackend
from compute.graph import Graph
from compute.nn.conv import Convolution
from compute.program import Engine, Plan, Program

FEW_CHANNELS = 16
"""Channels that fill an AVX-512 register. Kernels that put channels into registers mostly compute padding where all
convolutions have fewer; with the batch last none is wasted (LeNet-5 is then three times as fast)."""


class OnednnEngine(Engine):
    """Leaves each plan to the engine that suits the graph."""

    def __init__(self, program: Program, threads: int) -> None:
        super().__init__(program, threads)
        self._blocked = BlockedEngine(program, threads)
        self._batch_last = BatchLastEngine(program, threads, OnednnBackend(threads))

    def plan(self, graph: Graph, batch: int, training: bool) -> Plan:
        chosen = self._batch_last if self._suits_batch_last(graph) else self._blocked
        return chosen.plan(graph, batch, training)

    def _suits_batch_last(self, graph: Graph) -> bool:
        channels = [node.layer.out_channels for node in graph.nodes if isinstance(node.layer, Convolution)]
        return self.program.precision == "fp32" and 0 < max(channels, default=0) < FEW_CHANNELS

    def parameters_changed(self) -> None:
        self._blocked.parameters_changed()
        self._batch_last.parameters_changed()


def make(program: Program, threads: int) -> Engine:
    """The engine for a program."""
    return OnednnEngine(program, threads)
