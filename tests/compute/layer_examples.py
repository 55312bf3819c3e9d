"""One small example of every layer and container that nn exports; tests of what holds for all run over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from compute import TensorSpec, nn

ABSTRACT = {"Module", "Layer", "UnaryLayer", "CustomLayer", "Container", "Elementwise", "Cell"}
"""Bases for users' own layers."""

Example = tuple[Callable[[], nn.Module], tuple[TensorSpec, ...]]


WITHOUT_ARGUMENTS = """
Abs BinaryThreshold Contiguous Dropout ELU Exp Flatten GaussianDropout GELU GLU GradientReversal Hardshrink
Hardsigmoid Hardswish Hardtanh Identity LeakyReLU Log LogSigmoid LogSoftmax Masking Max Mean Min Mish Mul Negative
NegativeEntropyPenalty Normalize PositionalEncoding PReLU Reciprocal ReLU ReLU6 Reverse RReLU SELU Sigmoid Sign SiLU
Softmax Softmin Softplus Softshrink Softsign SplitTable Sqrt Square Squeeze SReLU Sum Tanh Tanhshrink Tile
"""

OF_TWO = """
CAddTable CAveTable CDivTable CMaxTable CMinTable CMulTable CSubTable CosineSimilarity DotProduct GaussianSampler
JoinTable Pack PairwiseDistance
"""


def values(*shape: int) -> TensorSpec:
    return TensorSpec(shape)


def whole(*shape: int) -> TensorSpec:
    """Whole numbers, 0 and 1 but for trees."""
    return TensorSpec(shape, "int64")


TREE = [(2, 1, -1), (-1, -1, 1), (-1, -1, 0)]
"""For nn.BinaryTreeLSTM: a root and two words."""


def inputs(specs: tuple[TensorSpec, ...], batch: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Random inputs of an example."""
    found: list[np.ndarray] = []
    for spec in specs:
        shape = (batch, *spec.shape)
        if spec.dtype == "float32":
            found.append(rng.standard_normal(shape, dtype=np.float32))
        elif spec.shape == np.shape(TREE):
            found.append(np.broadcast_to(np.array(TREE), shape).copy())
        else:
            found.append(rng.integers(0, 2, shape))
    return tuple(found)


def layers() -> list[str]:
    """Names of all layers and containers that nn exports."""
    return [
        name
        for name in nn.__all__
        if isinstance(getattr(nn, name), type) and issubclass(getattr(nn, name), nn.Module) and name not in ABSTRACT
    ]


def wired() -> nn.Module:
    a, b = nn.Input(), nn.Input()
    return nn.Graph([a, b], nn.CMulTable()(nn.Linear(4, 4)(a), b))


def examples() -> dict[str, Example]:
    """By class name."""
    return dict(_examples())


def _examples() -> Iterator[tuple[str, Example]]:
    sample, pair = (values(3, 4),), (values(3, 4), values(3, 4))
    of_any_shape: dict[str, tuple[float, ...]] = {
        **dict.fromkeys(WITHOUT_ARGUMENTS.split(), ()),
        "ActivityRegularization": (0.1, 0.2),
        "Add": (4,),
        "AddConstant": (2.0,),
        "BifurcateSplitTable": (1,),
        "CAdd": (3, 1),
        "CMul": (3, 1),
        "Clamp": (-0.5, 0.5),
        "Cosine": (4, 2),
        "Euclidean": (4, 2),
        "Expand": (2, 3, 4),
        "Flip": (0,),
        "GaussianNoise": (0.3,),
        "Highway": (4,),
        "InferReshape": (0, 2, 2),
        "L1Penalty": (0.1,),
        "Linear": (4, 2),
        "MulConstant": (2.0,),
        "LayerNorm": (4,),
        "LearnedPositionalEncoding": (5, 4),
        "MultiheadAttention": (4, 2),
        "Narrow": (0, 1, 2),
        "FeedForward": (4, 3, 0.1),
        "NormalizeScale": (2.0, 20.0, (3, 1)),
        "Padding": (0, 2),
        "Permute": (1, 0),
        "Power": (2.0,),
        "RMSNorm": (4,),
        "Replicate": (2,),
        "Reshape": (2, 6),
        "Scale": (3, 1),
        "Select": (0, -1),
        "Threshold": (0.1, 0.0),
        "TransformerEncoderLayer": (4, 2, 3),
        "Unsqueeze": (0,),
        "View": (2, 6),
    }
    for name, arguments in of_any_shape.items():
        yield name, (lambda n=name, a=arguments: getattr(nn, n)(*a), sample)
    yield "Transpose", (lambda: nn.Transpose((0, 1)), sample)
    yield "Unflatten", (lambda: nn.Unflatten(1, (2, 2)), sample)
    yield "Maxout", (lambda: nn.Maxout(4, 2, 3), (values(4),))

    for name in OF_TWO.split():
        yield name, (lambda n=name: getattr(nn, n)(), pair)
    yield "FlattenTable", (lambda: nn.Sequential(nn.MapTable(nn.Tanh()), nn.FlattenTable()), pair)
    yield "NarrowTable", (lambda: nn.Sequential(nn.MapTable(nn.Tanh()), nn.NarrowTable(0, 2)), pair)
    yield "SelectTable", (lambda: nn.Sequential(nn.MapTable(nn.Tanh()), nn.SelectTable(1)), pair)
    yield "MixtureTable", (nn.MixtureTable, (values(3), values(3, 4)))
    yield "MM", (lambda: nn.MM(trans_b=True), pair)
    yield "MV", (nn.MV, (values(3, 4), values(4)))
    yield "CrossProduct", (nn.CrossProduct, (values(4),) * 3)
    yield "Bilinear", (lambda: nn.Bilinear(4, 4, 2), pair)
    yield "Index", (nn.Index, (values(3, 4), whole(5)))
    yield "SparseLinear", (lambda: nn.SparseLinear(5, 2), (whole(3), values(3)))
    yield "SparseJoinTable", (lambda: nn.SparseJoinTable(2, 3), (whole(3), values(3), whole(2), values(2)))
    yield "DenseToSparse", (lambda: nn.DenseToSparse(4), (values(4),))
    yield "MaskedSelect", (nn.MaskedSelect, (values(3, 4), whole(3, 4)))
    yield "Embedding", (lambda: nn.Embedding(5, 2), (whole(3),))
    yield "EmbeddingBag", (lambda: nn.EmbeddingBag(5, 2), (whole(3),))

    yield "Sequential", (lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(), nn.Tanh()), sample)
    yield "Graph", (wired, pair)
    yield "Concat", (lambda: nn.Concat(nn.Tanh(), nn.Linear(4, 4)), sample)
    yield "ConcatTable", (lambda: nn.ConcatTable(nn.Tanh(), nn.Linear(4, 2)), sample)
    yield "ParallelTable", (lambda: nn.ParallelTable(nn.Tanh(), nn.Linear(4, 2)), pair)
    yield "MapTable", (lambda: nn.MapTable(nn.Linear(4, 2)), pair)
    yield "TimeDistributed", (lambda: nn.TimeDistributed(nn.Linear(4, 2)), sample)
    yield "Bottle", (lambda: nn.Bottle(nn.Linear(4, 2)), sample)

    for dims in (1, 2, 3):
        spatial = (values(2, *(6, 5, 4)[:dims]),)
        for name, argument in (
            ("AdaptiveAvgPool", (2,)),
            ("AdaptiveMaxPool", (2,)),
            ("AvgPool", (2,)),
            ("BatchNorm", (2,)),
            ("CircularPad", (1,)),
            ("ConvTranspose", (2, 3, 2)),
            ("InstanceNorm", (2,)),
            ("LPPool", (2.0, 2)),
            ("SpatialDropout", (0.5,)),
            ("UpSampling", (2,)),
            ("ConstantPad", (1, 0.5)),
            ("Conv", (2, 3, 2)),
            ("Cropping", ((1, 1),)),
            ("GlobalAvgPool", ()),
            ("GlobalMaxPool", ()),
            ("MaxPool", (2,)),
            ("ReflectionPad", (1,)),
            ("ReplicationPad", (1,)),
            ("ZeroPad", (1,)),
        ):
            yield f"{name}{dims}d", (lambda n=f"{name}{dims}d", a=argument: getattr(nn, n)(*a), spatial)
    image = (values(3, 5, 6),)
    yield "ChannelsLast", (lambda: nn.ChannelsLast(nn.Conv1d(4, 2, 2)), sample)
    yield "GroupNorm", (lambda: nn.GroupNorm(1, 3), image)
    yield "LocallyConnected1d", (lambda: nn.LocallyConnected1d(3, 2, 2), sample)
    yield "LocallyConnected2d", (lambda: nn.LocallyConnected2d(3, 2, 2), image)
    yield "PixelShuffle", (lambda: nn.PixelShuffle(2), (values(4, 2, 3),))
    yield "ResizeBilinear", (lambda: nn.ResizeBilinear(3, 9), image)
    yield "SeparableConv2d", (lambda: nn.SeparableConv2d(3, 2, 2), image)
    yield "SpatialConvolutionMap", (lambda: nn.SpatialConvolutionMap([(0, 0), (2, 1)], 2), image)
    for kind in ("Contrastive", "Divisive", "Subtractive"):
        name = f"Spatial{kind}Normalization"
        yield name, (lambda n=name: getattr(nn, n)(3, np.ones((3, 3))), image)
    yield "LocalResponseNorm", (lambda: nn.LocalResponseNorm(2), image)
    yield "WithinChannelLRN", (lambda: nn.WithinChannelLRN(3), image)

    steps = (values(5, 3),)
    for name in ("RNN", "LSTM", "GRU"):
        yield name, (lambda n=name: getattr(nn, n)(3, 2), steps)
        yield f"{name}Cell", (lambda n=name: nn.Recurrent(getattr(nn, f"{n}Cell")(3, 2)), steps)
    yield "ScaledDotProductAttention", (lambda: nn.ScaledDotProductAttention(2), (*pair, values(3, 4)))
    yield "Transformer", (lambda: nn.Transformer(4, 2, 1, 1, 3), pair)
    yield "TransformerDecoderLayer", (lambda: nn.TransformerDecoderLayer(4, 2, 3), pair)
    yield "TransformerDecoder", (lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 3), 2), pair)
    yield "TransformerEncoder", (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 3), 2), sample)
    yield "BinaryTreeLSTM", (lambda: nn.BinaryTreeLSTM(3, 2), (values(5, 3), whole(3, 3)))
    yield "Recurrent", (lambda: nn.Recurrent(nn.LSTMCell(3, 2)), steps)
    yield "BiRecurrent", (lambda: nn.BiRecurrent(nn.GRUCell(3, 2), nn.GRUCell(3, 2)), steps)
    yield "RecurrentDecoder", (lambda: nn.RecurrentDecoder(nn.RNNCell(3, 3), 4), (values(3),))
    yield "MultiRNNCell", (lambda: nn.Recurrent(nn.MultiRNNCell(nn.RNNCell(3, 2), nn.GRUCell(2, 2))), steps)
    yield "ConvLSTMCell", (lambda: nn.Recurrent(nn.ConvLSTMCell(2, 2)), (values(3, 2, 4, 4),))
