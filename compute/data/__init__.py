"""Data sets and transforms. A pipeline is written `source >> transform >> transform`; docs/data.md lists them all."""

from compute.data.arrays import from_arrays, from_items
from compute.data.color import color_jitter, hue, lighting
from compute.data.concat import concat
from compute.data.dataset import Dataset
from compute.data.erase import cutout, fill, random_expand
from compute.data.geometry import (
    center_crop,
    pad_image,
    random_crop,
    random_horizontal_flip,
    random_resized_crop,
    resize,
)
from compute.data.mnist import mnist
from compute.data.order import epoch_order
from compute.data.pixels import bgr, grey, normalize, normalize_pixels, rgb, to_float
from compute.data.source import Key, Source
from compute.data.transform import InputTransform, Transform, input_as_target, map, map_target, on_input, on_target

__all__ = [
    "Dataset",
    "InputTransform",
    "Key",
    "Source",
    "Transform",
    "bgr",
    "center_crop",
    "color_jitter",
    "concat",
    "cutout",
    "epoch_order",
    "fill",
    "from_arrays",
    "from_items",
    "grey",
    "hue",
    "input_as_target",
    "lighting",
    "map",
    "map_target",
    "mnist",
    "normalize",
    "normalize_pixels",
    "on_input",
    "on_target",
    "pad_image",
    "random_crop",
    "random_expand",
    "random_horizontal_flip",
    "random_resized_crop",
    "resize",
    "rgb",
    "to_float",
]
