"""Data sets and transforms. A pipeline is written `source >> transform >> transform`; docs/data.md lists them all."""

from compute.data.arrays import from_arrays, from_items
from compute.data.cifar import cifar10, cifar100
from compute.data.color import color_jitter, hue, lighting
from compute.data.concat import concat
from compute.data.csv_files import csv
from compute.data.dataset import Dataset
from compute.data.erase import cutout, fill, random_expand
from compute.data.folders import image_folder, text_folder
from compute.data.geometry import (
    center_crop,
    pad_image,
    random_crop,
    random_horizontal_flip,
    random_resized_crop,
    resize,
)
from compute.data.labels import one_hot, relabel
from compute.data.language_model import language_model
from compute.data.mnist import mnist
from compute.data.npy import npy, npz
from compute.data.order import epoch_order
from compute.data.parquet_files import parquet
from compute.data.pixels import bgr, grey, normalize, normalize_pixels, rgb, to_float
from compute.data.prefetch import Prefetcher
from compute.data.sequences import pad
from compute.data.source import Key, Source
from compute.data.text import sentence_split, text_to_labeled_sentence, to_ids, tokenize, word_tokenize
from compute.data.text_files import text_lines
from compute.data.transform import InputTransform, Transform, input_as_target, map, map_target, on_input, on_target
from compute.data.vocabulary import Vocabulary

__all__ = [
    "Dataset",
    "InputTransform",
    "Key",
    "Prefetcher",
    "Source",
    "Transform",
    "Vocabulary",
    "bgr",
    "center_crop",
    "cifar10",
    "cifar100",
    "color_jitter",
    "concat",
    "csv",
    "cutout",
    "epoch_order",
    "fill",
    "from_arrays",
    "from_items",
    "grey",
    "hue",
    "image_folder",
    "input_as_target",
    "language_model",
    "lighting",
    "map",
    "map_target",
    "mnist",
    "normalize",
    "normalize_pixels",
    "npy",
    "npz",
    "on_input",
    "on_target",
    "one_hot",
    "pad",
    "pad_image",
    "parquet",
    "random_crop",
    "random_expand",
    "random_horizontal_flip",
    "random_resized_crop",
    "relabel",
    "resize",
    "rgb",
    "sentence_split",
    "text_folder",
    "text_lines",
    "text_to_labeled_sentence",
    "to_float",
    "to_ids",
    "tokenize",
    "word_tokenize",
]
