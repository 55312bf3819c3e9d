"""Scaling to norm 1 along a dimension."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from compute.errors import InputError
from compute.nn.arithmetic import CMul
from compute.nn.container import join
from compute.nn.dims import axis_of, check_dim
from compute.nn.init import Constant
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.nn.module import Activity, Builder, Module
from compute.spec import Shape


class Normalize(UnaryLayer):
    """y = x / max(||x||_p, eps) along dimension `dim` of the sample, as torch.nn.functional.normalize; any shape.

    ||x||_p = (sum of |x|^p)^(1/p), the largest |x| for p = inf. By default over features or channels, as BigDL's
    Normalize.

    Args:
        p: at least 1, or inf.
        dim: from 0; negative from the end.
    """

    def __init__(self, p: float = 2.0, dim: int = 0, eps: float = 1e-12, name: str | None = None) -> None:
        super().__init__(name)
        if isinstance(p, bool) or not isinstance(p, int | float) or not p >= 1:
            raise InputError(f"Normalize: p must be a number of at least 1, or inf, got {p!r}")
        if not eps > 0:
            raise InputError(f"Normalize: eps must be positive, got {eps!r}")
        self.p, self.dim, self.eps = float(p), check_dim(self.kind, dim), float(eps)

    def output_shape(self, input_shape: Shape) -> Shape:
        axis_of(self.dim, len(input_shape))
        return input_shape

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        axis = axis_of(self.dim, x.ndim - 1)
        size = np.abs(x).astype(np.float64)
        norm = size.max(axis=axis, keepdims=True)
        if np.isfinite(self.p):
            # Relative to the largest, so that powers neither overflow nor vanish.
            relative = size / np.where(norm > 0, norm, 1.0)
            norm = norm * (relative**self.p).sum(axis=axis, keepdims=True) ** (1 / self.p)
        context.saved["norm"] = norm
        return np.asarray(x / np.maximum(norm, self.eps), dtype=np.float32)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        axis, norm = axis_of(self.dim, x.ndim - 1), context.saved["norm"]
        # y = x / norm with d norm / dx = sign(x) |x / norm|^(p - 1); constant where the norm is below eps
        share = np.abs(x) / np.where(norm > 0, norm, 1.0)
        if np.isfinite(self.p):
            slope = share ** (self.p - 1)
        else:  # those that are the largest, in equal parts
            largest = np.abs(x) == norm
            slope = largest / largest.sum(axis=axis, keepdims=True)
        along = (grad_y * y).sum(axis=axis, keepdims=True, dtype=np.float64)
        inner = grad_y - np.where(norm > self.eps, along, 0.0) * np.sign(x) * slope
        return np.asarray(inner / np.maximum(norm, self.eps), dtype=np.float32)


class NormalizeScale(Module):
    """Normalize(p, eps=eps) over channels and then a learnt factor of shape `size`, starting at `scale`.

    Made of nn.Normalize, named "normalize", and nn.CMul(*size), named "scale". BigDL's NormalizeScale.

    Args:
        size: broadcasts against the sample's shape: (channels, 1, 1) for images.
    """

    def __init__(
        self, p: float, scale: float, size: tuple[int, ...], eps: float = 1e-10, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.normalize = Normalize(p, 0, eps, name="normalize")
        self.scale = CMul(*size, weight_init=Constant(scale), name="scale")

    def children(self) -> Iterator[Module]:
        yield self.normalize
        yield self.scale

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        middle = self.normalize.build(builder, sources, join(path, "normalize"))
        return self.scale.build(builder, middle, join(path, "scale"))
