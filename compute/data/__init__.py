"""Data sets and transforms. A pipeline is written `source >> transform >> transform`."""

from compute.data.arrays import from_arrays
from compute.data.dataset import Dataset, Key, Source
from compute.data.mnist import mnist
from compute.data.order import epoch_order
from compute.data.transform import Transform, normalize, to_float

__all__ = ["Dataset", "Key", "Source", "Transform", "epoch_order", "from_arrays", "mnist", "normalize", "to_float"]
