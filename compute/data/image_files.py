"""Image files, by Pillow."""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray

from compute.data.files import REMEDY
from compute.errors import InputError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")

# What Pillow's decoders were seen to raise on damaged files; it promises no fewer.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, AttributeError,
                   OverflowError, ZeroDivisionError, RuntimeError, MemoryError, struct.error)  # fmt: skip


def decode_image(data: bytes, name: str, channels: int = 3) -> NDArray[np.uint8]:
    """Pixels, uint8 (channels, height, width), of a file's bytes: red, green, blue, or grey for one channel.

    Raises:
        InputError: it is no image, or a damaged one; `name` says which.
    """
    from PIL import Image, UnidentifiedImageError  # here, since only jobs with image files need it

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    # The warning, of a header that claims 10^8 pixels, comes here where Python is told to make errors of warnings.
    except (*_DECODER_ERRORS, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        known = not isinstance(error, UnidentifiedImageError)
        reason = " ".join(str(error).split()) if known else "of no known format"
        raise InputError(f"{name} is no image or a damaged one ({reason}); {REMEDY}") from None
    return pixels.transpose(2, 0, 1) if channels == 3 else pixels[None]
