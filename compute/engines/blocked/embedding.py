"""Look-up of rows, straight from the flat vector into the plan's buffer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compute import nn
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.layer_call import named
from compute.engines.staged import Stage
from compute.engines.tensor import ROWS, Tensor
from compute.errors import InputError
from compute.graph import Node
from compute.nn.embedding import check_ids, summed_rows


class EmbeddingStage(Stage):
    """Rows of the weight for ids. The gradient adds up, for each id that was used, the rows that it gave."""

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, nn.Embedding)
        self._layer = layer
        self._repeat = plan.graph.values[nodes[0].sources[0]].repeat
        self._ids = x.array
        self._weight, self._gradient = plan.parameters(nodes[0])["weight"], plan.gradients(nodes[0])["weight"]
        y = plan.rows(plan.shape(nodes[0].outputs[0]))
        self._y = y.array
        plan.emit(self._look_up, uses=(self._ids, self._y))
        self.outputs = (y,)

    def _look_up(self) -> None:
        try:
            check_ids(self._ids, self._layer.num_embeddings)
        except InputError as error:
            raise named(error, self.nodes[0], self._repeat) from None
        # They are in range: any other mode takes a copy of the result first.
        np.take(self._weight, self._ids, axis=0, out=self._y, mode="clip")

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        grad = self.plan.convert(grads[0], ROWS).array
        rows, ids = grad.reshape(-1, self._layer.embedding_dim), self._ids.reshape(-1)

        def add() -> None:
            used, sums = summed_rows(ids, rows, self._layer.padding_idx)
            self._gradient.fill(0.0)
            self._gradient[used] = sums

        self.plan.emit(add, uses=(grad, self._ids))
        return [None]
