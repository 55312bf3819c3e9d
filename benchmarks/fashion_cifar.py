"""Writes Fashion-MNIST in CIFAR-10's binary format: 60,000 + 10,000 images padded to 32x32, grey in three channels.

python -m benchmarks.fashion_cifar [--source FOLDER] TARGET
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from compute import InputError
from compute.data import idx

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
MEAN, STD = 0.2190, 0.3318  # of the padded training pixels, between 0 and 1


def write(source: Path, target: Path, train: int = 60_000, test: int = 10_000) -> None:
    """Writes data_batch_1.bin to data_batch_5.bin and test_batch.bin; the first images only, if asked."""
    target.mkdir(parents=True, exist_ok=True)
    for prefix, count, names in (
        ("train", train, [f"data_batch_{number}.bin" for number in range(1, 6)]),
        ("t10k", test, ["test_batch.bin"]),
    ):
        images = idx.read(source / f"{prefix}-images-idx3-ubyte.gz", idx.IMAGES_MAGIC)[:count]
        labels = idx.read(source / f"{prefix}-labels-idx1-ubyte.gz", idx.LABELS_MAGIC)[:count]
        padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
        pixels = np.repeat(padded.reshape(count, 1, 1024), 3, axis=1).reshape(count, 3072)
        records = np.concatenate([labels[:, None], pixels], axis=1)
        for name, part in zip(names, np.array_split(records, len(names)), strict=True):
            (target / name).write_bytes(part.tobytes())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Write Fashion-MNIST in CIFAR-10's binary format.")
    parser.add_argument("target", type=Path)
    parser.add_argument("--source", type=Path, default=FASHION_MNIST)
    options = parser.parse_args()
    try:
        write(options.source, options.target)
    except InputError as error:
        print(f"fashion_cifar: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
