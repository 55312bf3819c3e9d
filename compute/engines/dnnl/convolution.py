"""Convolutions, forward, backward by data and backward by weights; transposed ones (deconvolutions) likewise.

Shapes: source (N, C, *spatial), destination (N, K, *spatial'), bias (K,), weights (K, C, *kernel) or with groups
(G, K / G, C / G, *kernel), for one to three spatial dimensions. spatial' = (spatial + before + after - dilation *
(kernel - 1) - 1) / stride + 1; padding after the array follows from the shapes. Of a deconvolution the destination is
the larger one; its weights' first dimension is still the destination's channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from ctypes import c_void_p

from compute.engines.dnnl.api import Api
from compute.engines.dnnl.constants import INFERENCE, TRAINING, Convolution
from compute.engines.dnnl.descriptor import Descriptor
from compute.engines.dnnl.operation import Operation

_DECONVOLUTION_OFFSET = 9


def convolution(
    api: Api,
    src: Descriptor,
    weights: Descriptor,
    bias: Descriptor | None,
    dst: Descriptor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] | None = None,
    training: bool = True,
    algorithm: Convolution = Convolution.DIRECT,
    attr: c_void_p | None = None,
) -> Operation:
    """Arguments SRC, WEIGHTS, BIAS, DST. `padding` is that before the array; `dilation` 1 is none."""
    return _forward(api, "convolution", algorithm, src, weights, bias, dst, (stride, padding, dilation), training, attr)


def deconvolution(
    api: Api,
    src: Descriptor,
    weights: Descriptor,
    bias: Descriptor | None,
    dst: Descriptor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] | None = None,
    training: bool = True,
    attr: c_void_p | None = None,
) -> Operation:
    """Transposed convolution; arguments SRC, WEIGHTS, BIAS, DST."""
    window = (stride, padding, dilation)
    return _forward(api, "deconvolution", Convolution.DIRECT, src, weights, bias, dst, window, training, attr)


def _forward(
    api: Api,
    kind: str,
    algorithm: Convolution,
    src: Descriptor,
    weights: Descriptor,
    bias: Descriptor | None,
    dst: Descriptor,
    window: tuple[Sequence[int], Sequence[int], Sequence[int] | None],
    training: bool,
    attr: c_void_p | None,
) -> Operation:
    stride, before, dilation = window
    source, target = src.dims, dst.dims
    spatial = len(source) - 2
    dilation = dilation or [1] * spatial
    kernel = weights.dims[-spatial:]
    small, large = (target, source) if kind == "convolution" else (source, target)
    after = [
        # May be negative: rows that no window reaches.
        (small[2 + i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - large[2 + i] - before[i]
        for i in range(spatial)
    ]
    geometry = (
        int(algorithm) + (0 if kind == "convolution" else _DECONVOLUTION_OFFSET),
        list(stride),
        [step - 1 for step in dilation],
        list(before),
        after,
    )
    # Each weight meets every element of the smaller array once per sample.
    flops = 2.0 * math.prod(weights.dims) * small[0] * math.prod(small[2:])
    return Operation(
        api,
        f"{kind}_forward",
        TRAINING if training else INFERENCE,
        geometry[0],
        src,
        weights,
        bias,
        dst,
        *geometry[1:],
        attr=attr,
        flops=flops,
        geometry=geometry,
    )


def convolution_backward_data(
    forward: Operation,
    diff_src: Descriptor,
    weights: Descriptor,
    diff_dst: Descriptor,
    attr: c_void_p | None = None,
) -> Operation:
    """Of a convolution or deconvolution; arguments DIFF_DST, WEIGHTS, DIFF_SRC."""
    algorithm, *window = forward.geometry
    return Operation(
        forward.api,
        forward.kind.replace("forward", "backward_data"),
        algorithm,
        diff_src,
        weights,
        diff_dst,
        *window,
        forward,
        attr=attr,
        flops=forward.flops,
    )


def convolution_backward_weights(
    forward: Operation,
    src: Descriptor,
    diff_weights: Descriptor,
    diff_bias: Descriptor | None,
    diff_dst: Descriptor,
    attr: c_void_p | None = None,
) -> Operation:
    """Of a convolution or deconvolution; arguments SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS."""
    algorithm, *window = forward.geometry
    return Operation(
        forward.api,
        forward.kind.replace("forward", "backward_weights"),
        algorithm,
        src,
        diff_weights,
        diff_bias,
        diff_dst,
        *window,
        forward,
        attr=attr,
        flops=forward.flops,
    )
