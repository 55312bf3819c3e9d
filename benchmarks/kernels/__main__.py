"""One table of docs/kernels.md, as tab-separated values."""

from __future__ import annotations

import argparse

import torch

from benchmarks.kernels import convolutions, products, recurrent
from compute.engines import dnnl
from compute.engines.libraries import load_openmp


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("study", choices=["vgg", "resnet", "products", "attention", "pointwise", "batch-norm", "lstm"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each row of the table")
    parser.add_argument("--only", default="", help="layers whose name has this in it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    load_openmp().omp_set_num_threads(1)
    dtype = dnnl.F32 if args.dtype == "f32" else dnnl.BF16
    if args.study in ("vgg", "resnet"):
        layers = convolutions.VGG if args.study == "vgg" else convolutions.RESNET50
        convolutions.study([layer for layer in layers if args.only in layer.name], args.batch, dtype, args.seconds)
    elif args.study == "batch-norm":
        products.batch_normalization(args.batch, dtype, args.seconds)
    elif args.study == "lstm":
        recurrent.study(args.batch, dtype, args.seconds)
    else:
        getattr(products, args.study)(dtype, args.seconds)


if __name__ == "__main__":
    main()
