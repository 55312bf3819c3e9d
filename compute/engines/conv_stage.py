"""Convolution with the batch last, as matrix products on overlapping patches.

The input (C, H, W, n) is gathered into `rows` (H + padding, C, KW, OW * n): for each input row, channel and kernel
column, the samples that the output row needs, contiguous. Then the patches of output row y are simply the block
rows[y * stride : y * stride + KH], a (KH * C * KW, OW * n) matrix without a copy; blocks of neighbouring output rows
overlap. So only KW of the KH * KW copies of a full im2col are made, each of long contiguous runs, and one product per
output row does the rest:

    forward    y[:, row] (OC, OW n)        = weight (OC, KH C KW) @ block
    weights    grad weight                += grad_y[:, row] @ block.T
    data       grad_x rows, per column kx += weight[kx].T (KH C, OC) @ grad_y[:, row]     (stride 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from compute import nn
from compute.engines.backend import Backend, copy, fill_zero
from compute.engines.layer_call import views
from compute.engines.staged import Call, Stage, StagedPlan
from compute.engines.tensor import BATCH_LAST, Tensor
from compute.graph import Node
from compute.memory import aligned
from compute.program import Program

Array = NDArray[np.float32]


class PackedWeights:
    """A convolution's weights in the orders of the products; `refresh` after the parameters changed."""

    def __init__(self, node: Node, program: Program) -> None:
        weight = views(node, program.parameters)["weight"]
        out_channels, channels, kernel_height, kernel_width = weight.shape
        self._weight = weight
        self.forward: Array = aligned((out_channels, kernel_height * channels * kernel_width))
        self.by_column: Array = aligned((kernel_width, out_channels, kernel_height * channels))

    def refresh(self) -> None:
        """Copies the weights anew."""
        out_channels, channels, kernel_height, kernel_width = self._weight.shape
        np.copyto(
            self.forward.reshape(out_channels, kernel_height, channels, kernel_width),
            self._weight.transpose(0, 2, 1, 3),
        )
        np.copyto(
            self.by_column.reshape(kernel_width, out_channels, kernel_height, channels),
            self._weight.transpose(3, 0, 2, 1),
        )


class ConvStage(Stage):
    """activation(max_pool(conv(x)) + bias), the latter parts where they are there."""

    def __init__(
        self, plan: StagedPlan, nodes: Sequence[Node], x: Tensor, backend: Backend, packed: PackedWeights
    ) -> None:
        super().__init__(plan, nodes)
        self.x = plan.convert(x, BATCH_LAST).array
        layer = nodes[0].layer
        assert isinstance(layer, nn.Conv2d)
        self._layer, self._backend, self._packed = layer, backend, packed
        self._activation = next((n.layer for n in nodes if isinstance(n.layer, nn.Tanh | nn.ReLU)), None)
        pool = next((n.layer for n in nodes if isinstance(n.layer, nn.MaxPool2d)), None)
        self._gradients = plan.gradients(nodes[0])
        bias = plan.parameters(nodes[0]).get("bias")
        channels, height, _, self._n = self.x.shape
        out_channels, self._out_height, self._out_width = nodes[0].output_shape
        self._rows = aligned(
            (height + 2 * layer.padding[0], channels, layer.kernel_size[1], self._out_width * self._n)
        )
        self._convolved = aligned((out_channels, self._out_height, self._out_width * self._n))
        self.y = aligned((*nodes[-1].output_shape, self._n))
        plan.emit(*self._gather())
        for row in range(self._out_height):
            plan.emit(backend.gemm(packed.forward, self._block(row), self._convolved[:, row]))
        images = self._convolved.reshape(out_channels, self._out_height, self._out_width, self._n)
        # max(x) + b is max(x + b) to the bit, since rounding keeps the order: the bias, too, comes after the pooling.
        self._pooling = backend.max_pool(pool, images, self.y, plan.training) if pool is not None else None
        if self._pooling is not None:
            plan.emit(*self._pooling.forward)
        before = (self.y if self._pooling is not None else self._convolved).reshape(out_channels, -1)
        after = self.y.reshape(out_channels, -1)
        if bias is not None or self._activation is not None:
            plan.emit(backend.bias_activation(before, bias, after, self._activation))
        elif self._pooling is None:
            self.y = images
        self.outputs = (Tensor(self.y, BATCH_LAST),)

    def _block(self, row: int) -> Array:
        """The patches of an output row, (KH * C * KW, OW * n)."""
        first = row * self._layer.stride[0]
        return self._rows[first : first + self._layer.kernel_size[0]].reshape(-1, self._rows.shape[-1])

    def _gather(self) -> list[Call]:
        """Calls that fill `rows` from x; the padding in it stays zero for good."""
        channels, height, width, n = self.x.shape
        pad_y, pad_x = self._layer.padding
        stride = self._layer.stride[1]
        kernel_width = self._layer.kernel_size[1]
        inside = self._rows[pad_y : pad_y + height]
        if pad_x == 0 and stride == 1:
            s_c, s_y, s_x, s_n = self.x.strides
            # Neighbouring kernel columns read the same row, one pixel on.
            shifted = as_strided(self.x, inside.shape, (s_y, s_c, s_x, s_n), writeable=False)
            return [copy(shifted, inside)]
        calls = []
        columns = inside.reshape(height, channels, kernel_width, self._out_width, n)
        for kx in range(kernel_width):
            # Output columns whose source column ox * stride + kx - pad_x lies in the image.
            first = max(0, -(-(pad_x - kx) // stride))
            last = min(self._out_width - 1, (width - 1 + pad_x - kx) // stride)
            if last >= first:
                start = first * stride + kx - pad_x
                source = self.x[:, :, start : start + (last - first) * stride + 1 : stride]
                calls.append(copy(source.transpose(1, 0, 2, 3), columns[:, :, kx, first : last + 1]))
        return calls

    def backward(self, grads: Sequence[Tensor], needed: Sequence[bool]) -> Sequence[Tensor | None]:
        backend, plan = self._backend, self.plan
        out_channels = len(self._convolved)
        grad_y = plan.convert(grads[0], BATCH_LAST)
        if self._activation is not None:
            before = plan.overwritable(grad_y)
            plan.emit(backend.activation_backward(self._activation, self.y, grad_y.array, before.array))
            grad_y = before
        grad = grad_y.array
        if "bias" in self._gradients:
            # Pooling hands each gradient to one element, so the sum may be taken before.
            plan.emit(backend.row_sums(grad.reshape(out_channels, -1), self._gradients["bias"]))
        if self._pooling is not None:
            images = plan.empty((out_channels, self._out_height, self._out_width, self._n))
            plan.emit(*self._pooling.backward(grad, images))
            grad = images
        grad = grad.reshape(self._convolved.shape)
        plan.emit(*self._weights_backward(grad))
        if not needed[0]:
            return [None]
        calls, grad_x = self._data_backward(grad)
        plan.emit(*calls)
        return [Tensor(grad_x, BATCH_LAST)]

    def _weights_backward(self, grad: Array) -> list[Call]:
        kernel_height, kernel_width = self._layer.kernel_size
        self._grad_weight = aligned(self._packed.forward.shape)
        calls = [
            self._backend.gemm(grad[:, row], self._block(row).T, self._grad_weight, accumulate=row > 0)
            for row in range(self._out_height)
        ]
        in_order = self._grad_weight.reshape(len(grad), kernel_height, len(self.x), kernel_width)
        calls.append(copy(in_order.transpose(0, 2, 1, 3), self._gradients["weight"]))
        return calls

    def _data_backward(self, grad: Array) -> tuple[list[Call], Array]:
        """grad_x by adding up in an array (padded H, C, padded W * n), whose rows are those of the products."""
        channels, height, width, n = self.x.shape
        pad_y, pad_x = self._layer.padding
        stride_y, stride_x = self._layer.stride
        kernel_height, kernel_width = self._layer.kernel_size
        padded_width = max(width + 2 * pad_x, (self._out_width - 1) * stride_x + kernel_width)
        sums = aligned((height + 2 * pad_y, channels, padded_width * n))
        calls: list[Call] = [fill_zero(sums)]
        span = self._out_width * n
        for kx in range(kernel_width):
            weight = self._packed.by_column[kx].T
            if stride_x > 1:
                # The product's columns go to every stride_x-th pixel, which no matrix product can write.
                product = aligned((sums.shape[0], channels, span))
                calls.append(fill_zero(product))
            for row in range(self._out_height):
                rows = slice(row * stride_y, row * stride_y + kernel_height)
                if stride_x == 1:
                    target = sums[rows].reshape(-1, padded_width * n)[:, kx * n : kx * n + span]
                else:
                    target = product[rows].reshape(-1, span)
                calls.append(self._backend.gemm(weight, grad[:, row], target, accumulate=True))
            if stride_x > 1:
                pixels = sums.reshape(*sums.shape[:2], padded_width, n)
                target = pixels[:, :, kx : kx + (self._out_width - 1) * stride_x + 1 : stride_x]
                calls.append(partial(_add, target, product.reshape(target.shape)))
        grad_x = aligned(self.x.shape)
        inside = sums.reshape(*sums.shape[:2], padded_width, n)[pad_y : pad_y + height, :, pad_x : pad_x + width]
        calls.append(copy(inside.transpose(1, 0, 2, 3), grad_x))
        return calls, grad_x


def _add(target: Array, values: Array) -> None:
    np.add(target, values, out=target)
