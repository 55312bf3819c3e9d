"""Matrix products: inner products (fully connected layers) with their backward passes, and batched products."""

from __future__ import annotations

import math
from ctypes import c_void_p

from compute.engines.dnnl.api import Api
from compute.engines.dnnl.constants import INFERENCE, TRAINING
from compute.engines.dnnl.descriptor import Descriptor
from compute.engines.dnnl.operation import Operation


def inner_product(
    api: Api,
    src: Descriptor,
    weights: Descriptor,
    bias: Descriptor | None,
    dst: Descriptor,
    training: bool = True,
    attr: c_void_p | None = None,
) -> Operation:
    """dst (N, K) = src (N, C, *spatial) . weights (K, C, *spatial) + bias (K,); SRC, WEIGHTS, BIAS, DST."""
    kind = TRAINING if training else INFERENCE
    flops = 2.0 * src.dims[0] * math.prod(weights.dims)
    return Operation(api, "inner_product_forward", kind, src, weights, bias, dst, attr=attr, flops=flops)


def inner_product_backward_data(
    forward: Operation,
    diff_src: Descriptor,
    weights: Descriptor,
    diff_dst: Descriptor,
    attr: c_void_p | None = None,
) -> Operation:
    """Arguments DIFF_DST, WEIGHTS, DIFF_SRC."""
    arguments = (diff_src, weights, diff_dst, forward)
    return Operation(forward.api, "inner_product_backward_data", *arguments, attr=attr, flops=forward.flops)


def inner_product_backward_weights(
    forward: Operation,
    src: Descriptor,
    diff_weights: Descriptor,
    diff_bias: Descriptor | None,
    diff_dst: Descriptor,
    attr: c_void_p | None = None,
) -> Operation:
    """Arguments SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS."""
    arguments = (src, diff_weights, diff_bias, diff_dst, forward)
    return Operation(forward.api, "inner_product_backward_weights", *arguments, attr=attr, flops=forward.flops)


def matmul(
    api: Api,
    src: Descriptor,
    weights: Descriptor,
    bias: Descriptor | None,
    dst: Descriptor,
    attr: c_void_p | None = None,
) -> Operation:
    """dst (..., M, N) = src (..., M, K) @ weights (..., K, N) + bias; SRC, WEIGHTS, BIAS, DST.

    Leading sizes of 1 in src, weights or bias are repeated; the bias may have sizes of 1 anywhere. Transposed factors
    are those with strides (1, rows). Gradients are products again.
    """
    flops = 2.0 * math.prod(dst.dims) * src.dims[-1]
    return Operation(api, "matmul", src, weights, bias, dst, attr=attr, flops=flops)
