"""Batch normalization with the ReLU behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compute.engines import dnnl
from compute.engines.blocked.layout import Layout
from compute.engines.blocked.plan import BlockedPlan, vector, workspace_of
from compute.engines.dnnl.constants import (
    DIFF_DST,
    DIFF_SCALE,
    DIFF_SHIFT,
    DIFF_SRC,
    DST,
    FUSE_RELU,
    MEAN,
    SCALE,
    SHIFT,
    SRC,
    USE_GLOBAL_STATS,
    USE_SCALE,
    USE_SHIFT,
    VARIANCE,
)
from compute.engines.staged import Stage
from compute.engines.tensor import Tensor
from compute.graph import Node
from compute.nn.batch_norm import BatchNorm


class BatchNormStage(Stage):
    """[ReLU of] batch normalization, in the layout of its input.

    Raises:
        Unimplemented: oneDNN has no kernel for it but its reference.
    """

    plan: BlockedPlan

    def __init__(self, plan: BlockedPlan, nodes: Sequence[Node], x: Tensor) -> None:
        super().__init__(plan, nodes)
        layer = nodes[0].layer
        assert isinstance(layer, BatchNorm)
        own = layer.uses_batch_statistics(plan.training)
        self.reads_statistics = not own
        parameters, self._gradients = plan.parameters(nodes[0]), plan.gradients(nodes[0])
        self._flags = (USE_SCALE | USE_SHIFT if layer.affine else 0) | (0 if own else USE_GLOBAL_STATS)
        self._flags |= FUSE_RELU if len(nodes) > 1 else 0
        # The kernels' layouts are those with the channels in blocks, or plain ones.
        self._shape = plan.shape(nodes[0].sources[0])
        x = plan.typed(x)
        self._flat = len(self._shape) == 2
        self._x = self._as_image(plan.to(x, plan.plain(self._shape))) if self._flat else x
        data = plan.describe(self._x)
        self._forward = dnnl.batch_normalization(plan.api, data, data, layer.eps, self._flags, plan.training)
        if self._forward.implementation.startswith("ref"):
            raise dnnl.Unimplemented("batch normalization has no kernel for this layout")
        y = plan.tensor(plan.plain(self._shape) if self._flat else data)
        self._scale = {SCALE: vector(parameters["weight"])} if layer.affine else {}
        shift = {SHIFT: vector(parameters["bias"])} if layer.affine else {}
        self._statistics: dict[int, Tensor] = {}
        if not own:
            self._statistics = {MEAN: vector(parameters["running_mean"]), VARIANCE: vector(parameters["running_var"])}
        elif plan.training:
            size = (layer.num_features,)
            self._statistics = {MEAN: Tensor(plan.empty(size)), VARIANCE: Tensor(plan.empty(size))}
        self._workspace = workspace_of(plan, self._forward)
        plan.run(
            self._forward,
            {
                SRC: self._x,
                DST: self._as_image(y) if self._flat else y,
                **self._scale,
                **shift,
                **self._statistics,
                **self._workspace,
            },
        )
        if own and plan.training and layer.track_running_stats:
            count = self._x_count()
            self._unbias = count / max(count - 1, 1)
            plan.emit(self._tell)
        self.outputs = (y,)

    def _as_image(self, x: Tensor) -> Tensor:
        """Rows of features (n, C) as one image of n pixels, the channels last.

        As n images of one pixel each they would go to kernels up to five hundred times slower.
        """
        n, channels = self._shape
        described = self.plan.api.strided(
            (1, channels, n, 1), (n * channels, 1, channels, channels), self.plan.dtype
        )
        return Tensor(x.array, Layout(described), x.shared)

    def _x_count(self) -> int:
        """Values per channel."""
        n, _, *size = self.plan.shape(self.nodes[0].sources[0])
        return int(np.prod([n, *size]))

    def _tell(self) -> None:
        """Writes this micro-batch's share of the statistics."""
        share = self.plan.current.share
        mean, variance = self._statistics[MEAN].array, self._statistics[VARIANCE].array
        np.multiply(mean, np.float32(share), out=self._gradients["running_mean"])
        np.multiply(variance, np.float32(share * self._unbias), out=self._gradients["running_var"])

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        plan = self.plan
        data = plan.describe(self._x)
        operation = dnnl.batch_normalization_backward(self._forward, data, data, data)
        grad_y = plan.to(grads[0], plan.plain(self._shape) if self._flat else data)
        grad_x = plan.overwritable(grad_y)
        source, target = (self._as_image(grad) if self._flat else grad for grad in (grad_y, grad_x))
        found = {}
        if self._scale:
            found = {
                DIFF_SCALE: vector(self._gradients["weight"]),
                DIFF_SHIFT: vector(self._gradients["bias"]),
            }
        arguments = {SRC: self._x, DIFF_DST: source, DIFF_SRC: target, **self._scale, **found}
        plan.run(operation, {**arguments, **self._statistics, **self._workspace})
        return [grad_x]
