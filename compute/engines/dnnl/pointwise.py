"""Operations without a window: element-wise functions, sums, concatenation, reorders, reductions, shuffles."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_float, c_int, c_int64, c_void_p

from compute.engines.call import Call
from compute.engines.dnnl.api import Api
from compute.engines.dnnl.constants import DST, INFERENCE, SRC, TRAINING, Binary, Eltwise, Reduction
from compute.engines.dnnl.descriptor import Descriptor, Memory
from compute.engines.dnnl.operation import Operation, handles_of


def eltwise(
    api: Api,
    algorithm: Eltwise,
    src: Descriptor,
    dst: Descriptor,
    alpha: float = 0.0,
    beta: float = 0.0,
    training: bool = True,
    attr: c_void_p | None = None,
) -> Operation:
    """dst = f(src), see `Eltwise`; arguments SRC, DST, which may be one memory."""
    parameters = (float(alpha), float(beta))
    return Operation(
        api,
        "eltwise_forward",
        TRAINING if training else INFERENCE,
        algorithm,
        src,
        dst,
        *parameters,
        attr=attr,
        geometry=(algorithm, *parameters),
    )


def eltwise_backward(forward: Operation, diff_src: Descriptor, diff_dst: Descriptor, data: Descriptor) -> Operation:
    """diff_src = diff_dst * f'; arguments DIFF_DST, DIFF_SRC (may be one memory), SRC or with a ..._FROM_DST DST."""
    algorithm, *parameters = forward.geometry
    return Operation(forward.api, "eltwise_backward", algorithm, diff_src, diff_dst, data, *parameters, forward)


def binary(
    api: Api,
    algorithm: Binary,
    src: Descriptor,
    src_1: Descriptor,
    dst: Descriptor,
    attr: c_void_p | None = None,
) -> Operation:
    """dst = f(src, src_1); arguments SRC, SRC_1, DST. Sizes of 1 in src_1 are repeated; dst may be src."""
    return Operation(api, "binary", algorithm, src, src_1, dst, attr=attr)


def prelu(api: Api, src: Descriptor, weights: Descriptor, dst: Descriptor, training: bool = True) -> Operation:
    """dst = src if src > 0 else src * weights; arguments SRC, WEIGHTS, DST. Sizes of 1 in weights are repeated."""
    return Operation(api, "prelu_forward", TRAINING if training else INFERENCE, src, weights, dst)


def prelu_backward(
    forward: Operation,
    src: Descriptor,
    weights: Descriptor,
    diff_src: Descriptor,
    diff_weights: Descriptor,
    diff_dst: Descriptor,
) -> Operation:
    """Arguments SRC, WEIGHTS, DIFF_DST, DIFF_SRC, DIFF_WEIGHTS."""
    return Operation(forward.api, "prelu_backward", src, weights, diff_src, diff_weights, diff_dst, forward)


def weighted_sum(
    api: Api, sources: Sequence[Descriptor], dst: Descriptor, scales: Sequence[float] | None = None
) -> Operation:
    """dst = sum of scales[i] * source i (1 each by default); arguments MULTIPLE_SRC + i, DST."""
    count = len(sources)
    factors = (c_float * count)(*(scales or [1.0] * count))
    return Operation(api, "sum", dst, c_int(count), factors, handles_of(sources))


def concat(api: Api, sources: Sequence[Descriptor], dst: Descriptor, axis: int) -> Operation:
    """Concatenation along an axis; arguments MULTIPLE_SRC + i, DST."""
    return Operation(api, "concat", dst, c_int(len(sources)), c_int(axis), handles_of(sources))


def reorder(api: Api, src: Descriptor, dst: Descriptor, attr: c_void_p | None = None) -> Operation:
    """A copy between layouts and types; arguments SRC, DST."""
    return Operation(api, "reorder", src, api.engine, dst, api.engine, attr=attr)


def copy(api: Api, source: Memory, target: Memory, attr: c_void_p | None = None) -> Call:
    """The call of a `reorder` from one memory to another."""
    return reorder(api, source.descriptor, target.descriptor, attr).bind({SRC: source, DST: target})


def reduction(
    api: Api,
    algorithm: Reduction,
    src: Descriptor,
    dst: Descriptor,
    p: float = 0.0,
    epsilon: float = 0.0,
    attr: c_void_p | None = None,
) -> Operation:
    """Reduces the dimensions in which dst has size 1 and src more; arguments SRC, DST."""
    return Operation(api, "reduction", algorithm, src, dst, float(p), float(epsilon), attr=attr)


def shuffle(api: Api, src: Descriptor, dst: Descriptor, axis: int, group_size: int, training: bool = True) -> Operation:
    """Transposes an axis seen as (group_size, size / group_size) ... into its reverse; arguments SRC, DST."""
    kind = TRAINING if training else INFERENCE
    geometry = (axis, c_int64(group_size))
    return Operation(api, "shuffle_forward", kind, src, dst, *geometry, geometry=geometry)


def shuffle_backward(forward: Operation, diff_src: Descriptor, diff_dst: Descriptor) -> Operation:
    """Arguments DIFF_DST, DIFF_SRC."""
    return Operation(forward.api, "shuffle_backward", diff_src, diff_dst, *forward.geometry, forward)
