"""Bilinear resampling of one image, by Pillow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def resample(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """The image (channels, height, width) at `size` = (height, width): bilinear, antialiased where it shrinks.

    Bytes stay bytes, rounded; anything else becomes float32.
    """
    if image.shape[1:] == size:
        return image
    from PIL import Image  # here, since only jobs with images of other sizes need it

    target = (size[1], size[0])
    if image.dtype == np.uint8 and len(image) == 3:
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
        resized = Image.fromarray(pixels).resize(target, Image.Resampling.BILINEAR)
        return np.asarray(resized).transpose(2, 0, 1)
    kind = np.uint8 if image.dtype == np.uint8 else np.float32
    planes = [Image.fromarray(np.ascontiguousarray(plane, dtype=kind)) for plane in image]
    return np.stack([np.asarray(plane.resize(target, Image.Resampling.BILINEAR)) for plane in planes])
