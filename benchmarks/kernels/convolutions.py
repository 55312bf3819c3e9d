"""Convolutions: oneDNN's choices and layouts, im2col with a matrix product, and PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.kernels.measure import Variant, alternate, report
from compute.engines import dnnl
from compute.engines.mkl_api import Mkl
from compute.memory import aligned


@dataclass(frozen=True)
class Layer:
    """A square convolution of a square image; the same padding on all sides."""

    name: str
    channels: int
    size: int
    outputs: int
    kernel: int = 3
    stride: int = 1

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def out_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    def flops(self, batch: int) -> float:
        """Of each of the three passes, padding counted."""
        return 2.0 * batch * self.outputs * self.out_size**2 * self.channels * self.kernel**2


VGG = [
    Layer("3-64@32", 3, 32, 64),
    Layer("64-64@32", 64, 32, 64),
    Layer("64-128@16", 64, 16, 128),
    Layer("128-128@16", 128, 16, 128),
    Layer("128-256@8", 128, 8, 256),
    Layer("256-256@8", 256, 8, 256),
    Layer("256-512@4", 256, 4, 512),
    Layer("512-512@4", 512, 4, 512),
    Layer("512-512@2", 512, 2, 512),
]
RESNET50 = [
    Layer("7x7/2 3-64@224", 3, 224, 64, 7, 2),
    Layer("1x1 64-256@56", 64, 56, 256, 1),
    Layer("1x1 256-64@56", 256, 56, 64, 1),
    Layer("3x3 64-64@56", 64, 56, 64),
    Layer("1x1/2 256-512@56", 256, 56, 512, 1, 2),
    Layer("3x3/2 128-128@56", 128, 56, 128, 3, 2),
    Layer("3x3 128-128@28", 128, 28, 128),
    Layer("1x1 512-128@28", 512, 28, 128, 1),
    Layer("3x3 256-256@14", 256, 14, 256),
    Layer("1x1 1024-256@14", 1024, 14, 256, 1),
    Layer("3x3 512-512@7", 512, 7, 512),
    Layer("1x1 512-2048@7", 512, 7, 2048, 1),
]
PASSES = ("forward", "backward data", "backward weights")
LAYOUTS = {"any": None, "nChw16c": "aBcd16b", "nhwc": "acdb"}


def onednn(api: dnnl.Api, layer: Layer, batch: int, dtype: dnnl.DataType, layout: str) -> dict[str, dnnl.Call]:
    """The passes in one layout of activations; of the weights the kernel's choice."""
    tag = LAYOUTS[layout]
    weights = api.any((layer.outputs, layer.channels, layer.kernel, layer.kernel), dtype)

    def shape(*dims: int) -> dnnl.Descriptor:
        # Three channels would be padded to sixteen.
        fits = tag is not None and (dims[1] >= 16 or "B" not in tag)
        return api.tagged(dims, tag, dtype) if fits and tag is not None else api.any(dims, dtype)

    src = shape(batch, layer.channels, layer.size, layer.size)
    dst = shape(batch, layer.outputs, layer.out_size, layer.out_size)
    bias = api.strided((layer.outputs,))
    window = ((layer.stride,) * 2, (layer.padding,) * 2)
    forward = dnnl.convolution(api, src, weights, bias, dst, *window)
    x, y = random_memory(api, forward.layout(dnnl.SRC)), random_memory(api, forward.layout(dnnl.DST))
    w, b = random_memory(api, forward.layout(dnnl.WEIGHTS)), api.memory(bias)
    calls = {PASSES[0]: forward.bind({dnnl.SRC: x, dnnl.WEIGHTS: w, dnnl.BIAS: b, dnnl.DST: y})}
    data = dnnl.convolution_backward_data(forward, src, weights, dst)
    calls[PASSES[1]] = data.bind(
        {a: random_memory(api, data.layout(a)) for a in (dnnl.DIFF_DST, dnnl.WEIGHTS, dnnl.DIFF_SRC)}
    )
    gradient = api.any((layer.outputs, layer.channels, layer.kernel, layer.kernel))
    update = dnnl.convolution_backward_weights(forward, src, gradient, bias, dst)
    arguments = (dnnl.SRC, dnnl.DIFF_DST, dnnl.DIFF_WEIGHTS, dnnl.DIFF_BIAS)
    calls[PASSES[2]] = update.bind({a: random_memory(api, update.layout(a)) for a in arguments})
    return calls


def random_memory(api: dnnl.Api, layout: dnnl.Descriptor) -> dnnl.Memory:
    """Numbers of size 1 in that layout: zeros and denormals can be faster or slower."""
    memory = api.memory(layout)
    dims = layout.dims
    values = aligned(dims)
    values[...] = np.random.default_rng(1).standard_normal(dims, dtype=np.float32)
    if dnnl.copy(api, api.memory(api.strided(dims), values), memory)() != 0:
        raise RuntimeError("reorder failed")
    return memory


def im2col(api: dnnl.Api, mkl: Mkl, layer: Layer, batch: int, dtype: dnnl.DataType) -> dict[str, dict[str, Variant]]:
    """Patches of an nhwc image as rows, copied by numpy, and a product with oneDNN or MKL; nothing for large images.

    Forward includes the gathering of patches; the weights' gradient reuses them; the data's gradient scatters.
    """
    if layer.size > 8 or layer.stride > 1:
        return {}
    pad, size, kernel = layer.padding, layer.size, layer.kernel
    numbers = dtype.numpy
    padded = aligned((batch, size + 2 * pad, size + 2 * pad, layer.channels), numbers)
    x = aligned((batch, size, size, layer.channels), numbers)
    patches = aligned((batch, size, size, kernel, kernel, layer.channels), numbers)
    s = padded.strides
    windows = np.lib.stride_tricks.as_strided(padded, patches.shape, (s[0], s[1], s[2], s[1], s[2], s[3]))
    rows, depth = batch * size * size, kernel * kernel * layer.channels
    matrix = patches.reshape(rows, depth)

    def gather() -> None:
        padded[:, pad : pad + size, pad : pad + size] = x
        np.copyto(patches, windows)

    found: dict[str, dict[str, Variant]] = {name: {} for name in PASSES}
    any_x, any_w = api.strided((rows, depth), dtype=dtype), api.any((layer.outputs, depth), dtype)
    y = api.strided((rows, layer.outputs), dtype=dtype)
    bias = api.strided((layer.outputs,))
    forward = dnnl.inner_product(api, any_x, any_w, bias, y)
    calls = [
        forward,
        dnnl.inner_product_backward_data(forward, any_x, any_w, y),
        dnnl.inner_product_backward_weights(forward, any_x, api.any((layer.outputs, depth)), bias, y),
    ]
    arguments = [
        (dnnl.WEIGHTS, dnnl.BIAS, dnnl.DST),
        (dnnl.DIFF_DST, dnnl.WEIGHTS, dnnl.DIFF_SRC),
        (dnnl.DIFF_DST, dnnl.DIFF_WEIGHTS, dnnl.DIFF_BIAS),
    ]
    memory = api.memory(any_x, matrix)
    products = []
    for operation, names in zip(calls, arguments, strict=True):
        memories = {name: random_memory(api, operation.layout(name)) for name in names}
        if dnnl.DIFF_SRC not in names:
            memories[dnnl.SRC] = memory
        products.append(operation.bind(memories))
    gathered: list[Callable[[], object]] = [lambda: (gather(), products[0]()), products[1], products[2]]
    for name, call in zip(PASSES, gathered, strict=True):
        found[name][f"im2col ip ({products[PASSES.index(name)].record.implementation})"] = call
    transposed = api.tagged((layer.outputs, rows), "ba", dtype)
    update = dnnl.matmul(
        api, transposed, api.strided((rows, depth), dtype=dtype), None, api.any((layer.outputs, depth))
    )
    found[PASSES[2]][f"im2col matmul ({update.implementation})"] = update.bind(
        {
            dnnl.SRC: random_memory(api, transposed),
            dnnl.WEIGHTS: memory,
            dnnl.DST: api.memory(update.layout(dnnl.DST)),
        }
    )
    weights = aligned((layer.outputs, depth), numbers)
    result, grad = aligned((rows, layer.outputs)), aligned((layer.outputs, depth))
    source = aligned((rows, layer.outputs), numbers)
    product = mkl.gemm(matrix, weights.T, result)
    found[PASSES[0]]["im2col mkl"] = lambda: (gather(), product())
    found[PASSES[1]]["im2col mkl"] = mkl.gemm(source, weights, aligned((rows, depth)))
    found[PASSES[2]]["im2col mkl"] = mkl.gemm(source.T, matrix, grad)
    for array in (x, weights, source):
        # Ones: half of a float32 one is a bfloat16 one.
        array.fill(1.0 if numbers == np.float32 else 0x3F80)
    return found


def dense(api: dnnl.Api, layer: Layer, batch: int, dtype: dnnl.DataType) -> dict[str, Variant]:
    """A tiny image as one inner product of all its elements: weights are repeated, but none meets padding."""
    if layer.size > 2 or layer.stride > 1:
        return {}
    inputs, outputs = layer.channels * layer.size**2, layer.outputs * layer.size**2
    x, w, y = api.any((batch, inputs), dtype), api.any((outputs, inputs), dtype), api.any((batch, outputs), dtype)
    forward = dnnl.inner_product(api, x, w, None, y)
    operations = [
        forward,
        dnnl.inner_product_backward_data(forward, x, w, y),
        dnnl.inner_product_backward_weights(forward, x, api.any((outputs, inputs)), None, y),
    ]
    arguments = [
        (dnnl.SRC, dnnl.WEIGHTS, dnnl.DST),
        (dnnl.DIFF_DST, dnnl.WEIGHTS, dnnl.DIFF_SRC),
        (dnnl.SRC, dnnl.DIFF_DST, dnnl.DIFF_WEIGHTS),
    ]
    return {
        name: operation.bind({a: random_memory(api, operation.layout(a)) for a in names})
        for name, operation, names in zip(PASSES, operations, arguments, strict=True)
    }


def pytorch(layer: Layer, batch: int, dtype: dnnl.DataType, channels_last: bool) -> dict[str, Variant]:
    """PyTorch's operators, as eager training calls them."""
    kind = torch.float32 if dtype is dnnl.F32 else torch.bfloat16
    order = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(batch, layer.channels, layer.size, layer.size).to(kind).contiguous(memory_format=order)
    w = torch.randn(layer.outputs, layer.channels, layer.kernel, layer.kernel).to(kind).contiguous(memory_format=order)
    b = torch.randn(layer.outputs).to(kind)
    g = torch.randn(batch, layer.outputs, layer.out_size, layer.out_size).to(kind).contiguous(memory_format=order)
    window = ([layer.stride] * 2, [layer.padding] * 2, [1, 1], False, [0, 0], 1)

    def backward(mask: list[bool]) -> Variant:
        return lambda: torch.ops.aten.convolution_backward(g, x, w, [layer.outputs], *window, mask)

    return {
        PASSES[0]: lambda: torch.ops.aten.convolution(x, w, b, *window),
        PASSES[1]: backward([True, False, False]),
        PASSES[2]: backward([False, True, True]),
    }


def study(layers: list[Layer], batch: int, dtype: dnnl.DataType, seconds: float) -> None:
    """Prints all variants of all passes."""
    mkl = Mkl()
    for layer in layers:
        api = dnnl.Api()
        variants: dict[str, dict[str, Variant]] = {name: {} for name in PASSES}
        for layout in LAYOUTS:
            try:
                calls = onednn(api, layer, batch, dtype, layout)
            except dnnl.Unimplemented:
                continue
            for name, call in calls.items():
                variants[name][f"{layout} ({call.record.implementation})"] = call
        for name, found in im2col(api, mkl, layer, batch, dtype).items():
            variants[name].update(found)
        for name, call in dense(api, layer, batch, dtype).items():
            variants[name]["dense ip"] = call
        for channels_last in (False, True):
            for name, found_one in pytorch(layer, batch, dtype, channels_last).items():
                variants[name]["torch channels_last" if channels_last else "torch"] = found_one
        for name in PASSES:
            title = f"{layer.name}\tb{batch}\t{dtype.name}\t{name}"
            report(title, alternate(variants[name], seconds), layer.flops(batch), "GFLOP/s")
