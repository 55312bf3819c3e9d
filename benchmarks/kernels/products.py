"""Products, normalizations and activations of a Transformer, a recurrent layer and a residual network."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.kernels.convolutions import random_memory
from benchmarks.kernels.measure import Variant, alternate, report
from compute.engines import dnnl
from compute.engines.mkl_api import Function, Mkl
from compute.memory import aligned

# rows, inputs, outputs
PRODUCTS = {
    "attention projection": (2048, 512, 512),
    "feed forward in": (2048, 512, 2048),
    "feed forward out": (2048, 2048, 512),
    "LSTM gates, all steps": (700, 650, 2600),
    "LSTM gates, one step": (20, 650, 2600),
    "output layer": (700, 650, 10000),
    "VGG classifier": (128, 512, 512),
}


def numbers(shape: tuple[int, ...], dtype: dnnl.DataType) -> np.ndarray:
    """Ones: their speed is that of all normal numbers, and they need no rounding."""
    array = aligned(shape, dtype.numpy)
    array.fill(1.0 if dtype is dnnl.F32 else 0x3F80)
    return array


def products(dtype: dnnl.DataType, seconds: float) -> None:
    """y = x . w + b and both gradients, as a training step needs them."""
    mkl, kind = Mkl(), torch.float32 if dtype is dnnl.F32 else torch.bfloat16
    for title, (rows, inputs, outputs) in PRODUCTS.items():
        api = dnnl.Api()
        variants: dict[str, dict[str, Variant]] = {"forward": {}, "backward data": {}, "backward weights": {}}
        for layout in ("any", "plain"):
            shape = api.any if layout == "any" else api.strided

            def descriptor(*dims: int, shape=shape, kind=dtype) -> dnnl.Descriptor:  # type: ignore[no-untyped-def]
                return shape(dims, dtype=kind)

            # Activations stay row-major in both: their neighbours want them so.
            x, y = api.strided((rows, inputs), dtype=dtype), api.strided((rows, outputs), dtype=dtype)
            w, bias = descriptor(outputs, inputs), api.strided((outputs,))
            forward = dnnl.inner_product(api, x, w, bias, y)
            data = dnnl.inner_product_backward_data(forward, x, w, y)
            update = dnnl.inner_product_backward_weights(
                forward, x, descriptor(outputs, inputs, kind=dnnl.F32), bias, y
            )
            for name, operation, arguments in zip(
                variants,
                (forward, data, update),
                (
                    (dnnl.SRC, dnnl.WEIGHTS, dnnl.BIAS, dnnl.DST),
                    (dnnl.DIFF_DST, dnnl.WEIGHTS, dnnl.DIFF_SRC),
                    (dnnl.SRC, dnnl.DIFF_DST, dnnl.DIFF_WEIGHTS, dnnl.DIFF_BIAS),
                ),
                strict=True,
            ):
                memories = {a: random_memory(api, operation.layout(a)) for a in arguments}
                variants[name][f"inner_product {layout} ({operation.implementation})"] = operation.bind(memories)
            # The same as general products; w.T, w and g.T are views.
            weights = (
                api.any((inputs, outputs), dtype) if layout == "any" else api.tagged((inputs, outputs), "ba", dtype)
            )
            plain = (
                api.any((outputs, inputs), dtype) if layout == "any" else api.strided((outputs, inputs), dtype=dtype)
            )
            flipped = api.tagged((outputs, rows), "ba", dtype)
            gradient = api.any((outputs, inputs)) if layout == "any" else api.strided((outputs, inputs))
            for name, operation in (
                ("forward", dnnl.matmul(api, x, weights, api.strided((1, outputs)), y)),
                ("backward data", dnnl.matmul(api, y, plain, None, x)),
                ("backward weights", dnnl.matmul(api, flipped, x, None, gradient)),
            ):
                arguments = [dnnl.SRC, dnnl.WEIGHTS, dnnl.DST] + ([dnnl.BIAS] if name == "forward" else [])
                memories = {a: random_memory(api, operation.layout(a)) for a in arguments}
                variants[name][f"matmul {layout} ({operation.implementation})"] = operation.bind(memories)
        x_, w_, y_ = numbers((rows, inputs), dtype), numbers((outputs, inputs), dtype), numbers((rows, outputs), dtype)
        variants["forward"]["mkl"] = mkl.gemm(x_, w_.T, aligned((rows, outputs)))
        variants["backward data"]["mkl"] = mkl.gemm(y_, w_, aligned((rows, inputs)))
        variants["backward weights"]["mkl"] = mkl.gemm(y_.T, x_, aligned((outputs, inputs)))
        tx, tw = torch.randn(rows, inputs).to(kind), torch.randn(outputs, inputs).to(kind)
        tb, tg = torch.randn(outputs).to(kind), torch.randn(rows, outputs).to(kind)
        variants["forward"]["torch"] = lambda tx=tx, tw=tw, tb=tb: torch.nn.functional.linear(tx, tw, tb)
        variants["backward data"]["torch"] = lambda tg=tg, tw=tw: tg @ tw
        variants["backward weights"]["torch"] = lambda tg=tg, tx=tx: (tg.t() @ tx, tg.sum(0))
        for name, found in variants.items():
            row = f"{title} {rows}x{inputs}x{outputs}\t-\t{dtype.name}\t{name}"
            report(row, alternate(found, seconds), 2.0 * rows * inputs * outputs, "GFLOP/s")


def attention(dtype: dnnl.DataType, seconds: float) -> None:
    """Batched products of 16 x 8 heads of 128 tokens and 64 numbers, and the softmax between them."""
    api, kind = dnnl.Api(), torch.float32 if dtype is dnnl.F32 else torch.bfloat16
    mkl = Mkl()
    heads, tokens, size = 128, 128, 64
    for name, (m, k, n), tag in (("scores", (tokens, size, tokens), "acb"), ("mix", (tokens, tokens, size), "abc")):
        operation = dnnl.matmul(
            api,
            api.strided((heads, m, k), dtype=dtype),
            api.tagged((heads, k, n), tag, dtype),
            None,
            api.strided((heads, m, n), dtype=dtype),
        )
        memories = {a: random_memory(api, operation.layout(a)) for a in (dnnl.SRC, dnnl.WEIGHTS, dnnl.DST)}
        found: dict[str, Variant] = {f"matmul ({operation.implementation})": operation.bind(memories)}
        if dtype is dnnl.F32:
            b = numbers((heads, n, k), dtype).transpose(0, 2, 1) if tag == "acb" else numbers((heads, k, n), dtype)
            found["mkl batch"] = mkl.batched_gemm(numbers((heads, m, k), dtype), b, aligned((heads, m, n)))
        tx, ty = torch.randn(heads, m, k).to(kind), torch.randn(heads, n, k).to(kind).transpose(1, 2)
        ty = ty if tag == "acb" else ty.contiguous()
        found["torch"] = lambda tx=tx, ty=ty: torch.bmm(tx, ty)
        row = f"attention {name} {heads}x{m}x{k}x{n}\t-\t{dtype.name}\tproduct"
        report(row, alternate(found, seconds), 2.0 * heads * m * k * n, "GFLOP/s")


def pointwise(dtype: dnnl.DataType, seconds: float) -> None:
    """Softmax, layer normalization, GELU and others, forward and backward, in GB/s of what must be read and written."""
    api, kind = dnnl.Api(), torch.float32 if dtype is dnnl.F32 else torch.bfloat16
    mkl = Mkl()

    def bind(operation: dnnl.Operation, *arguments: int) -> dnnl.Call:
        return operation.bind({a: random_memory(api, operation.layout(a)) for a in arguments})

    def rows(shape: tuple[int, int], title: str, found: dict[str, dict[str, Variant]], streams: dict[str, int]) -> None:
        for name, variants in found.items():
            work = streams[name] * shape[0] * shape[1] * dtype.size_bytes
            row = f"{title} {shape[0]}x{shape[1]}\t-\t{dtype.name}\t{name}"
            report(row, alternate(variants, seconds), float(work), "GB/s")

    both = {"forward": 2, "backward": 3}
    for title, shape, log in (("softmax", (16384, 128), False), ("log-softmax", (700, 10000), True)):
        layout = api.strided(shape, dtype=dtype)
        algorithm = dnnl.Softmax.LOG_SOFTMAX if log else dnnl.Softmax.SOFTMAX
        forward = dnnl.softmax(api, layout, layout, 1, algorithm)
        backward = dnnl.softmax_backward(forward, layout, layout, layout)
        x, g = torch.randn(shape).to(kind), torch.randn(shape).to(kind)
        y = torch.softmax(x, 1)
        function = torch.log_softmax if log else torch.softmax
        gradient = torch.ops.aten._log_softmax_backward_data if log else torch.ops.aten._softmax_backward_data
        found: dict[str, dict[str, Variant]] = {
            "forward": {
                f"onednn ({forward.implementation})": bind(forward, dnnl.SRC, dnnl.DST),
                "torch": lambda function=function, x=x: function(x, 1),
            },
            "backward": {
                f"onednn ({backward.implementation})": bind(backward, dnnl.DST, dnnl.DIFF_DST, dnnl.DIFF_SRC),
                "torch": lambda gradient=gradient, g=g, y=y: gradient(g, y, 1, kind),
            },
        }
        rows(shape, title, found, both)

    shape = (2048, 512)
    layout, statistics = api.strided(shape, dtype=dtype), api.strided(shape[:1])
    forward = dnnl.layer_normalization(api, layout, layout, statistics, 1e-5)
    backward = dnnl.layer_normalization_backward(forward, layout, layout, layout, statistics)
    x, g = torch.randn(shape).to(kind), torch.randn(shape).to(kind)
    w, b = torch.randn(shape[1]).to(kind), torch.randn(shape[1]).to(kind)
    _, mean, rstd = torch.ops.aten.native_layer_norm(x, [shape[1]], w, b, 1e-5)
    common = (dnnl.SRC, dnnl.MEAN, dnnl.VARIANCE, dnnl.SCALE, dnnl.SHIFT)
    found = {
        "forward": {
            f"onednn ({forward.implementation})": bind(forward, *common, dnnl.DST),
            "torch": lambda: torch.ops.aten.native_layer_norm(x, [shape[1]], w, b, 1e-5),
        },
        "backward": {
            f"onednn ({backward.implementation})": bind(
                backward, *common, dnnl.DIFF_DST, dnnl.DIFF_SRC, dnnl.DIFF_SCALE, dnnl.DIFF_SHIFT
            ),
            "torch": lambda: torch.ops.aten.native_layer_norm_backward(
                g, x, [shape[1]], mean, rstd, w, b, [True, True, True]
            ),
        },
    }
    rows(shape, "layer norm", found, both)

    functional = torch.nn.functional
    shape = (2048, 2048)
    layout = api.strided(shape, dtype=dtype)
    x, g = torch.randn(shape).to(kind), torch.randn(shape).to(kind)
    for title, algorithm, function, gradient in (
        ("gelu (erf)", dnnl.Eltwise.GELU_ERF, functional.gelu, lambda: torch.ops.aten.gelu_backward(g, x)),
        (
            "gelu (tanh)",
            dnnl.Eltwise.GELU_TANH,
            lambda x: functional.gelu(x, approximate="tanh"),
            lambda: torch.ops.aten.gelu_backward(g, x, approximate="tanh"),
        ),
        ("relu", dnnl.Eltwise.RELU, torch.relu, lambda: torch.ops.aten.threshold_backward(g, x, 0)),
        ("tanh", dnnl.Eltwise.TANH_FROM_DST, torch.tanh, lambda: torch.ops.aten.tanh_backward(g, x)),
        ("sigmoid", dnnl.Eltwise.LOGISTIC_FROM_DST, torch.sigmoid, lambda: torch.ops.aten.sigmoid_backward(g, x)),
    ):
        forward = dnnl.eltwise(api, algorithm, layout, layout)
        backward = dnnl.eltwise_backward(forward, layout, layout, layout)
        data = dnnl.DST if algorithm.from_dst else dnnl.SRC
        found = {
            "forward": {
                f"onednn ({forward.implementation})": bind(forward, dnnl.SRC, dnnl.DST),
                "torch": lambda function=function: function(x),
            },
            "backward": {
                f"onednn ({backward.implementation})": bind(backward, data, dnnl.DIFF_DST, dnnl.DIFF_SRC),
                "torch": gradient,
            },
        }
        vector = {"tanh": Function.TANH, "gelu (erf)": Function.CDF_NORM}.get(title)
        if vector is not None and dtype is dnnl.F32:
            found["forward"][f"mkl {vector}"] = mkl.vector(vector, numbers(shape, dtype), aligned(shape))
        rows(shape, title, found, both)


def batch_normalization(batch: int, dtype: dnnl.DataType, seconds: float) -> None:
    """Training, with and without a fused ReLU, in blocked and nhwc layouts; PyTorch's batch norm and then its ReLU."""
    kind = torch.float32 if dtype is dnnl.F32 else torch.bfloat16
    for channels, size in ((64, 32), (128, 16), (256, 8), (512, 4), (256, 56)):
        api, shape = dnnl.Api(), (batch, channels, size, size)
        found: dict[str, dict[str, Variant]] = {"forward": {}, "backward": {}}
        for title, tag in (("nChw16c", "aBcd16b"), ("nhwc", "acdb"), ("nchw", "abcd")):
            layout = api.tagged(shape, tag, dtype)
            flags = dnnl.USE_SCALE | dnnl.USE_SHIFT | dnnl.FUSE_RELU
            forward = dnnl.batch_normalization(api, layout, layout, 1e-5, flags)
            backward = dnnl.batch_normalization_backward(forward, layout, layout, layout)
            workspace = api.memory(forward.layout(dnnl.WORKSPACE))
            common = (dnnl.SRC, dnnl.MEAN, dnnl.VARIANCE, dnnl.SCALE)
            memories = {a: random_memory(api, forward.layout(a)) for a in (*common, dnnl.SHIFT, dnnl.DST)}
            memories[dnnl.WORKSPACE] = workspace
            found["forward"][f"{title} + relu ({forward.implementation})"] = forward.bind(memories)
            memories = {
                a: random_memory(api, backward.layout(a))
                for a in (*common, dnnl.DIFF_DST, dnnl.DIFF_SRC, dnnl.DIFF_SCALE, dnnl.DIFF_SHIFT)
            }
            memories[dnnl.WORKSPACE] = workspace
            found["backward"][f"{title} + relu ({backward.implementation})"] = backward.bind(memories)
        for order in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(shape).to(kind).contiguous(memory_format=order)
            g = torch.randn(shape).to(kind).contiguous(memory_format=order)
            w, b = torch.randn(channels), torch.randn(channels)
            y, mean, rstd = torch.ops.aten.native_batch_norm(x, w, b, None, None, True, 0.1, 1e-5)

            def torch_forward(x=x, w=w, b=b) -> object:  # type: ignore[no-untyped-def]
                return torch.relu_(torch.ops.aten.native_batch_norm(x, w, b, None, None, True, 0.1, 1e-5)[0])

            def torch_backward(x=x, w=w, g=g, y=y, mean=mean, rstd=rstd) -> object:  # type: ignore[no-untyped-def]
                after = torch.ops.aten.threshold_backward(g, y, 0)
                return torch.ops.aten.native_batch_norm_backward(
                    after, x, w, None, None, mean, rstd, True, 1e-5, [True, True, True]
                )

            title = "torch channels_last" if order is torch.channels_last else "torch"
            found["forward"][title], found["backward"][title] = torch_forward, torch_backward
        elements = batch * channels * size * size * dtype.size_bytes
        for name, variants in found.items():
            # Forward reads x twice (statistics, result) and writes y; backward reads x and g twice and writes one.
            work = float(elements * (3 if name == "forward" else 5))
            report(f"{channels}@{size}\tb{batch}\t{dtype.name}\t{name}", alternate(variants, seconds), work, "GB/s")
