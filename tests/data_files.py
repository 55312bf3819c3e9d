"""Small data sets of real images, in the true file format, for tests."""

import gzip
import struct
from pathlib import Path

import numpy as np

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


def write_cifar(target: Path, train: int, test: int) -> Path:
    """The first images of Fashion-MNIST in CIFAR-10's binary format, in `target`: 32 x 32, three like channels.

    Args:
        train: a multiple of five, since there are five files.
    """
    target.mkdir(parents=True, exist_ok=True)
    for prefix, count, names in (
        ("train", train, [f"data_batch_{number}.bin" for number in range(1, 6)]), ("t10k", test, ["test_batch.bin"]),
    ):  # fmt: skip
        with gzip.open(FASHION_MNIST / f"{prefix}-images-idx3-ubyte.gz") as file:
            images = np.frombuffer(file.read(16 + 784 * count)[16:], dtype=np.uint8).reshape(count, 1, 28, 28)
        with gzip.open(FASHION_MNIST / f"{prefix}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(8 + count)[8:], dtype=np.uint8)
        planes = np.repeat(np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))), 3, axis=1)
        records = np.concatenate([labels[:, None], planes.reshape(count, 3072)], axis=1)
        for name, part in zip(names, np.split(records, len(names)), strict=True):
            (target / name).write_bytes(part.tobytes())
    return target
