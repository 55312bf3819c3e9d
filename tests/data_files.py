"""Small data sets of real images, in the true file format, for tests."""

import gzip
import struct
from pathlib import Path

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist


def write_subset(target: Path, train: int = 6400, test: int = 1000) -> Path:
    """The first images and labels of Fashion-MNIST, as plain idx files, in `target`."""
    target.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", train), ("t10k", test)):
        for kind, item_bytes, header_bytes in (("images-idx3", 784, 16), ("labels-idx1", 1, 8)):
            name = f"{prefix}-{kind}-ubyte"
            with gzip.open(FASHION_MNIST / f"{name}.gz") as file:
                header = bytearray(file.read(header_bytes))
                data = file.read(count * item_bytes)
            header[4:8] = struct.pack(">I", count)
            (target / name).write_bytes(bytes(header) + data)
    return target
