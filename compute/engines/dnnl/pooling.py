"""Pooling and resampling, over one to three spatial dimensions of (N, C, *spatial)."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_float, c_void_p

from compute.engines.dnnl.api import Api
from compute.engines.dnnl.constants import INFERENCE, TRAINING, Pooling, Resampling
from compute.engines.dnnl.descriptor import Descriptor
from compute.engines.dnnl.operation import Operation


def pooling(
    api: Api,
    algorithm: Pooling,
    src: Descriptor,
    dst: Descriptor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] | None = None,
    training: bool = True,
    attr: c_void_p | None = None,
) -> Operation:
    """Arguments SRC, DST, WORKSPACE if there is one (maxima in training). Padding after follows from the shapes.

    An average that includes the padding divides by the whole window, even beyond the padding.
    """
    spatial = len(kernel)
    dilation = dilation or [1] * spatial
    after = [
        # May be negative: rows that no window reaches.
        (dst.dims[2 + i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - src.dims[2 + i] - padding[i]
        for i in range(spatial)
    ]
    # The C interface wants both, although the latter follow from the former.
    window = (list(stride), list(kernel), [step - 1 for step in dilation], list(padding), after)
    return Operation(
        api,
        "pooling_forward",
        TRAINING if training else INFERENCE,
        algorithm,
        src,
        dst,
        *window,
        attr=attr,
        geometry=(algorithm, *window),
    )


def pooling_backward(forward: Operation, diff_src: Descriptor, diff_dst: Descriptor) -> Operation:
    """Arguments DIFF_DST, DIFF_SRC, WORKSPACE if there is one."""
    algorithm, *window = forward.geometry
    return Operation(forward.api, "pooling_backward", algorithm, diff_src, diff_dst, *window, forward)


def resampling(
    api: Api,
    algorithm: Resampling,
    src: Descriptor,
    dst: Descriptor,
    training: bool = True,
    attr: c_void_p | None = None,
) -> Operation:
    """Sizes as the destination's; pixel centres lie at half-integers. Arguments SRC, DST.

    Element o is taken from (o + 0.5) / factor - 0.5 with factor = output size / input size: the nearest element, or
    linearly between the two around it, as PyTorch's align_corners=False.
    """
    factors = _factors(src.dims, dst.dims)
    return Operation(
        api,
        "resampling_forward",
        TRAINING if training else INFERENCE,
        algorithm,
        factors,
        src,
        dst,
        attr=attr,
        geometry=(algorithm, factors),
    )


def resampling_backward(forward: Operation, diff_src: Descriptor, diff_dst: Descriptor) -> Operation:
    """Arguments DIFF_DST, DIFF_SRC."""
    return Operation(forward.api, "resampling_backward", *forward.geometry, diff_src, diff_dst, forward)


def _factors(source: Sequence[int], target: Sequence[int]) -> object:
    spatial = len(source) - 2
    return (c_float * spatial)(*(target[2 + i] / source[2 + i] for i in range(spatial)))
