"""Dropout of whole channels."""

from __future__ import annotations

from typing import ClassVar

from compute.nn.dropout import keep_mask, keep_scale, probability
from compute.nn.layer import Array, Arrayed, LayerContext
from compute.nn.spatial import Spatial
from compute.spec import Shape


class SpatialDropout(Spatial):
    """Base of SpatialDropout1d, SpatialDropout2d and SpatialDropout3d."""

    def __init__(self, p: float = 0.5, name: str | None = None) -> None:
        super().__init__(name)
        self.p = probability(self.kind, p)

    def output_shape(self, input_shape: Shape) -> Shape:
        self.check(input_shape)
        return input_shape

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        if not context.training or self.p == 0:
            return x
        mask = keep_mask(context.stream(), x.shape[0] * x.shape[1], self.p)
        scale = (mask * keep_scale(self.p)).astype("float32")
        context.saved["scale"] = scale.reshape(*x.shape[:2], *(1,) * self.rank)
        y: Array = x * context.saved["scale"]
        return y

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return grad_y * context.saved["scale"] if "scale" in context.saved else grad_y


_DOC = """ samples.

    y = x * mask / (1 - p) in training, mask being 0 for all elements of a channel with probability p, else 1; y = x in
    evaluation. p as for nn.Dropout. As torch.nn's Dropout1d, Dropout2d and Dropout3d. For (times, features) see
    nn.ChannelsLast. Tompson et al., Efficient Object Localization Using Convolutional Networks (2015).
    """


class SpatialDropout1d(SpatialDropout):
    __doc__ = "Drops whole channels of (channels, length)" + _DOC
    rank: ClassVar[int] = 1


class SpatialDropout2d(SpatialDropout):
    __doc__ = "Drops whole channels of (channels, height, width)" + _DOC
    rank: ClassVar[int] = 2


class SpatialDropout3d(SpatialDropout):
    __doc__ = "Drops whole channels of (channels, depth, height, width)" + _DOC
    rank: ClassVar[int] = 3
