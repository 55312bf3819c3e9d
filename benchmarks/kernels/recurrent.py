"""A layer of an LSTM over a whole sequence: oneDNN's primitive and PyTorch's module, training."""

from __future__ import annotations

import torch

from benchmarks.kernels.convolutions import random_memory
from benchmarks.kernels.measure import Variant, alternate, report
from compute.engines import dnnl

STEPS, SIZE = 35, 650


def study(batch: int, dtype: dnnl.DataType, seconds: float) -> None:
    """Forward, and forward with backward: the latter needs the former's workspace."""
    api = dnnl.Api()
    state = (1, 1, batch, SIZE)

    def sequence(kind: dnnl.DataType) -> dnnl.Sequence:
        return dnnl.Sequence(
            src_layer=api.strided((STEPS, batch, SIZE), dtype=kind),
            src_iter=api.strided(state, dtype=kind),
            src_iter_c=api.strided(state),
            weights_layer=api.any((1, 1, SIZE, 4, SIZE), kind),
            weights_iter=api.any((1, 1, SIZE, 4, SIZE), kind),
            bias=api.strided((1, 1, 4, SIZE)),
            dst_layer=api.strided((STEPS, batch, SIZE), dtype=kind),
            dst_iter=api.strided(state, dtype=kind),
            dst_iter_c=api.strided(state),
        )

    forward = dnnl.recurrent(api, dnnl.Cell.LSTM, sequence(dtype))
    backward = dnnl.recurrent_backward(forward, sequence(dtype), sequence(dnnl.F32))
    inputs = (dnnl.SRC_LAYER, dnnl.SRC_ITER, dnnl.SRC_ITER_C, dnnl.WEIGHTS_LAYER, dnnl.WEIGHTS_ITER, dnnl.BIAS)
    outputs = (dnnl.DST_LAYER, dnnl.DST_ITER, dnnl.DST_ITER_C)
    memories = {a: random_memory(api, forward.layout(a)) for a in (*inputs, *outputs)}
    memories[dnnl.WORKSPACE] = api.memory(forward.layout(dnnl.WORKSPACE))
    run_forward = forward.bind(memories)
    run_forward()
    weights = {a: random_memory(api, backward.layout(a)) for a in (dnnl.WEIGHTS_LAYER, dnnl.WEIGHTS_ITER)}
    diffs = {dnnl.diff(a): random_memory(api, backward.layout(dnnl.diff(a))) for a in (*inputs, *outputs)}
    run_backward = backward.bind({**memories, **weights, **diffs})

    kind = torch.float32 if dtype is dnnl.F32 else torch.bfloat16
    module = torch.nn.LSTM(SIZE, SIZE).to(kind)
    x = torch.randn(STEPS, batch, SIZE, dtype=kind, requires_grad=True)
    grad = torch.randn(STEPS, batch, SIZE, dtype=kind)

    def torch_step() -> None:
        torch.autograd.grad(module(x)[0], [x, *module.parameters()], grad)

    name = forward.implementation
    found: dict[str, dict[str, Variant]] = {
        "forward": {f"onednn ({name})": run_forward, "torch": lambda: module(x)},
        "forward and backward": {f"onednn ({name})": lambda: run_forward() + run_backward(), "torch": torch_step},
    }
    for which, variants in found.items():
        work = forward.flops * (1 if which == "forward" else 3)
        row = f"LSTM {STEPS}x{batch}x{SIZE}\tb{batch}\t{dtype.name}\t{which}"
        report(row, alternate(variants, seconds), work, "GFLOP/s")
