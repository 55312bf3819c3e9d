"""Batch, layer and local response normalization, and softmax."""

from __future__ import annotations

from ctypes import c_int64, c_void_p

from compute.engines.dnnl.api import Api
from compute.engines.dnnl.constants import (
    INFERENCE,
    TRAINING,
    USE_SCALE,
    USE_SHIFT,
    Lrn,
    Propagation,
    Softmax,
)
from compute.engines.dnnl.descriptor import Descriptor
from compute.engines.dnnl.operation import Operation


def batch_normalization(
    api: Api,
    src: Descriptor,
    dst: Descriptor,
    epsilon: float,
    flags: int = USE_SCALE | USE_SHIFT,
    training: bool = True,
    attr: c_void_p | None = None,
) -> Operation:
    """dst = (src - mean) / sqrt(variance + epsilon) * scale + shift, per channel (dimension 1).

    Arguments SRC, DST, SCALE and SHIFT float32 (C,) each with its flag, MEAN and VARIANCE float32 (C,): written in
    training (the variance is the biased one), read with USE_GLOBAL_STATS. Without training and USE_GLOBAL_STATS the
    batch's own statistics are used and not told. With FUSE_RELU negative results become 0, in training with WORKSPACE.
    """
    kind = TRAINING if training else INFERENCE
    geometry = (float(epsilon), flags)
    return Operation(api, "batch_normalization_forward", kind, src, dst, *geometry, attr=attr, geometry=geometry)


def batch_normalization_backward(
    forward: Operation, diff_src: Descriptor, diff_dst: Descriptor, src: Descriptor
) -> Operation:
    """Arguments SRC, MEAN, VARIANCE, DIFF_DST, DIFF_SRC, SCALE, DIFF_SCALE, DIFF_SHIFT, WORKSPACE as there are.

    With USE_GLOBAL_STATS mean and variance count as constants.
    """
    return _normalization_backward(forward, "batch_normalization_backward", (diff_src, diff_dst, src))


def _normalization_backward(forward: Operation, kind: str, descriptors: tuple[Descriptor, ...]) -> Operation:
    flags = forward.geometry[-1]
    propagation = Propagation.BACKWARD if flags & (USE_SCALE | USE_SHIFT) else Propagation.BACKWARD_DATA
    return Operation(forward.api, kind, propagation, *descriptors, *forward.geometry, forward)


def layer_normalization(
    api: Api,
    src: Descriptor,
    dst: Descriptor,
    statistics: Descriptor,
    epsilon: float,
    flags: int = USE_SCALE | USE_SHIFT,
    training: bool = True,
    attr: c_void_p | None = None,
) -> Operation:
    """Normalization over the last dimension, of size C.

    Arguments SRC, DST, SCALE and SHIFT float32 (C,) each with its flag, MEAN and VARIANCE float32 as `statistics`, of
    src's shape without the last dimension: written in training, read with USE_GLOBAL_STATS.
    """
    kind = TRAINING if training else INFERENCE
    geometry = (float(epsilon), flags)
    return Operation(
        api, "layer_normalization_forward", kind, src, dst, statistics, *geometry, attr=attr, geometry=geometry
    )


def layer_normalization_backward(
    forward: Operation, diff_src: Descriptor, diff_dst: Descriptor, src: Descriptor, statistics: Descriptor
) -> Operation:
    """Arguments SRC, MEAN, VARIANCE, DIFF_DST, DIFF_SRC, SCALE, SHIFT, DIFF_SCALE, DIFF_SHIFT as there are.

    The library wants SHIFT although the gradients do not depend on it.
    """
    return _normalization_backward(forward, "layer_normalization_backward", (diff_src, diff_dst, src, statistics))


def local_response_normalization(
    api: Api,
    src: Descriptor,
    dst: Descriptor,
    local_size: int,
    alpha: float,
    beta: float,
    k: float,
    algorithm: Lrn = Lrn.ACROSS_CHANNELS,
    training: bool = True,
) -> Operation:
    """dst = src / (k + alpha / n * (sum of squares in the window)) ** beta; SRC, DST, WORKSPACE if there is one.

    n is local_size across channels, local_size ** spatial dimensions within a channel.
    """
    kind = TRAINING if training else INFERENCE
    parameters = (c_int64(local_size), float(alpha), float(beta), float(k))
    return Operation(api, "lrn_forward", kind, algorithm, src, dst, *parameters, geometry=(algorithm, *parameters))


def local_response_normalization_backward(
    forward: Operation, diff_src: Descriptor, diff_dst: Descriptor, src: Descriptor
) -> Operation:
    """Arguments SRC, DIFF_DST, DIFF_SRC, WORKSPACE if there is one."""
    algorithm, *parameters = forward.geometry
    return Operation(forward.api, "lrn_backward", algorithm, diff_src, diff_dst, src, *parameters, forward)


def softmax(
    api: Api,
    src: Descriptor,
    dst: Descriptor,
    axis: int,
    algorithm: Softmax = Softmax.SOFTMAX,
    training: bool = True,
    attr: c_void_p | None = None,
) -> Operation:
    """Softmax or its logarithm along an axis; SRC, DST."""
    kind = TRAINING if training else INFERENCE
    return Operation(api, "softmax_forward", kind, algorithm, src, dst, axis, attr=attr, geometry=(algorithm, axis))


def softmax_backward(forward: Operation, diff_src: Descriptor, diff_dst: Descriptor, dst: Descriptor) -> Operation:
    """Arguments DST, DIFF_DST, DIFF_SRC."""
    algorithm, axis = forward.geometry
    return Operation(forward.api, "softmax_backward", algorithm, diff_src, diff_dst, dst, axis, forward)
