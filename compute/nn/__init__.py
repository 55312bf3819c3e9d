"""Layers, containers and criterions. Names and semantics are today's standard ones (PyTorch's); labels count from 0."""

from compute.nn import (
    criterion,
    init,
)
from compute.nn.activation import (
    BinaryThreshold,
    Clamp,
    Hardshrink,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    ReLU,
    ReLU6,
    Softshrink,
    Threshold,
)
from compute.nn.adaptive_pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    GlobalAvgPool1d,
    GlobalAvgPool2d,
    GlobalAvgPool3d,
    GlobalMaxPool1d,
    GlobalMaxPool2d,
    GlobalMaxPool3d,
)
from compute.nn.arithmetic import (
    Abs,
    Add,
    AddConstant,
    CAdd,
    CMul,
    Exp,
    Log,
    Mul,
    MulConstant,
    Negative,
    Power,
    Reciprocal,
    Scale,
    Sign,
    Sqrt,
    Square,
)
from compute.nn.attention import (
    MultiheadAttention,
    ScaledDotProductAttention,
)
from compute.nn.batch_norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
)
from compute.nn.beam_search import (
    beam_search,
)
from compute.nn.cell import (
    Cell,
)
from compute.nn.channels_last import (
    ChannelsLast,
)
from compute.nn.container import (
    Bottle,
    Concat,
    ConcatTable,
    Container,
    MapTable,
    ParallelTable,
    Sequential,
    TimeDistributed,
)
from compute.nn.contrastive_norm import (
    SpatialContrastiveNormalization,
    SpatialDivisiveNormalization,
    SpatialSubtractiveNormalization,
)
from compute.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
)
from compute.nn.conv_lstm import (
    ConvLSTMCell,
)
from compute.nn.conv_map import (
    SpatialConvolutionMap,
)
from compute.nn.conv_transpose import (
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from compute.nn.criterion import *  # noqa: F403  (its __all__ is part of ours, below)
from compute.nn.criterion import (
    Criterion,
    NLLLoss,
)
from compute.nn.cropping import (
    Cropping1d,
    Cropping2d,
    Cropping3d,
)
from compute.nn.distance import (
    Cosine,
    CosineSimilarity,
    Euclidean,
    PairwiseDistance,
)
from compute.nn.dropout import (
    Dropout,
    GaussianDropout,
    GaussianNoise,
    GaussianSampler,
)
from compute.nn.elementwise import (
    Elementwise,
)
from compute.nn.embedding import (
    Embedding,
    EmbeddingBag,
)
from compute.nn.gated_cell import (
    GRUCell,
    LSTMCell,
    RNNCell,
)
from compute.nn.group_norm import (
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from compute.nn.highway import (
    Highway,
)
from compute.nn.layer import (
    CustomLayer,
    Layer,
    LayerContext,
    UnaryLayer,
)
from compute.nn.layer_norm import (
    LayerNorm,
    RMSNorm,
)
from compute.nn.learnt_activation import (
    Maxout,
    PReLU,
    RReLU,
    SReLU,
)
from compute.nn.linear import (
    Linear,
)
from compute.nn.local_response_norm import (
    LocalResponseNorm,
    WithinChannelLRN,
)
from compute.nn.locally_connected import (
    LocallyConnected1d,
    LocallyConnected2d,
)
from compute.nn.lp_pooling import (
    LPPool1d,
    LPPool2d,
    LPPool3d,
)
from compute.nn.module import (
    Module,
    Parameter,
    Wire,
)
from compute.nn.multi_cell import (
    MultiRNNCell,
)
from compute.nn.normalize import (
    Normalize,
    NormalizeScale,
)
from compute.nn.padding import (
    CircularPad1d,
    CircularPad2d,
    CircularPad3d,
    ConstantPad1d,
    ConstantPad2d,
    ConstantPad3d,
    Padding,
    ReflectionPad1d,
    ReflectionPad2d,
    ReflectionPad3d,
    ReplicationPad1d,
    ReplicationPad2d,
    ReplicationPad3d,
    ZeroPad1d,
    ZeroPad2d,
    ZeroPad3d,
)
from compute.nn.penalty import (
    ActivityRegularization,
    GradientReversal,
    L1Penalty,
    NegativeEntropyPenalty,
)
from compute.nn.pooling import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from compute.nn.position import (
    LearnedPositionalEncoding,
    PositionalEncoding,
)
from compute.nn.product import (
    MM,
    MV,
    Bilinear,
    CrossProduct,
    DotProduct,
)
from compute.nn.recurrent import (
    BiRecurrent,
    Recurrent,
    RecurrentDecoder,
)
from compute.nn.reduction import (
    Max,
    Mean,
    Min,
    Sum,
)
from compute.nn.regularizer import (
    L1,
    L1L2,
    L2,
    Regularizer,
)
from compute.nn.repetition import (
    Expand,
    Replicate,
    Tile,
)
from compute.nn.reshape import (
    Contiguous,
    Flatten,
    Identity,
    InferReshape,
    Reshape,
    Squeeze,
    Unflatten,
    Unsqueeze,
    View,
)
from compute.nn.rnn import (
    GRU,
    LSTM,
    RNN,
)
from compute.nn.selection import (
    Flip,
    Index,
    Masking,
    Narrow,
    Permute,
    Reverse,
    Select,
    Transpose,
)
from compute.nn.separable_conv import (
    SeparableConv2d,
)
from compute.nn.smooth import (
    ELU,
    GELU,
    SELU,
    LogSigmoid,
    Mish,
    Sigmoid,
    SiLU,
    Softplus,
    Softsign,
    Tanh,
    Tanhshrink,
)
from compute.nn.softmax import (
    GLU,
    LogSoftmax,
    Softmax,
    Softmin,
)
from compute.nn.sparse import (
    DenseToSparse,
    MaskedSelect,
    SparseJoinTable,
    SparseLinear,
)
from compute.nn.spatial_dropout import (
    SpatialDropout1d,
    SpatialDropout2d,
    SpatialDropout3d,
)
from compute.nn.table import (
    BifurcateSplitTable,
    FlattenTable,
    JoinTable,
    NarrowTable,
    Pack,
    SelectTable,
    SplitTable,
)
from compute.nn.table_arithmetic import (
    CAddTable,
    CAveTable,
    CDivTable,
    CMaxTable,
    CMinTable,
    CMulTable,
    CSubTable,
    MixtureTable,
)
from compute.nn.transformer import (
    FeedForward,
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from compute.nn.tree_lstm import (
    BinaryTreeLSTM,
)
from compute.nn.upsampling import (
    PixelShuffle,
    ResizeBilinear,
    UpSampling1d,
    UpSampling2d,
    UpSampling3d,
)
from compute.nn.wiring import (
    Graph,
    Input,
)
from compute.spec import (
    Shape,
)

__all__ = [
    "ELU",
    "GELU",
    "GLU",
    "GRU",
    "L1",
    "L1L2",
    "L2",
    "LSTM",
    "MM",
    "MV",
    "RNN",
    "SELU",
    "Abs",
    "ActivityRegularization",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "Add",
    "AddConstant",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BiRecurrent",
    "BifurcateSplitTable",
    "Bilinear",
    "BinaryThreshold",
    "BinaryTreeLSTM",
    "Bottle",
    "CAdd",
    "CAddTable",
    "CAveTable",
    "CDivTable",
    "CMaxTable",
    "CMinTable",
    "CMul",
    "CMulTable",
    "CSubTable",
    "Cell",
    "ChannelsLast",
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "Clamp",
    "Concat",
    "ConcatTable",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "Container",
    "Contiguous",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvLSTMCell",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Cosine",
    "CosineSimilarity",
    "Criterion",
    "Cropping1d",
    "Cropping2d",
    "Cropping3d",
    "CrossProduct",
    "CustomLayer",
    "DenseToSparse",
    "DotProduct",
    "Dropout",
    "Elementwise",
    "Embedding",
    "EmbeddingBag",
    "Euclidean",
    "Exp",
    "Expand",
    "FeedForward",
    "Flatten",
    "FlattenTable",
    "Flip",
    "GRUCell",
    "GaussianDropout",
    "GaussianNoise",
    "GaussianSampler",
    "GlobalAvgPool1d",
    "GlobalAvgPool2d",
    "GlobalAvgPool3d",
    "GlobalMaxPool1d",
    "GlobalMaxPool2d",
    "GlobalMaxPool3d",
    "GradientReversal",
    "Graph",
    "GroupNorm",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Highway",
    "Identity",
    "Index",
    "InferReshape",
    "Input",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "JoinTable",
    "L1Penalty",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "LSTMCell",
    "Layer",
    "LayerContext",
    "LayerNorm",
    "LeakyReLU",
    "LearnedPositionalEncoding",
    "Linear",
    "LocalResponseNorm",
    "LocallyConnected1d",
    "LocallyConnected2d",
    "Log",
    "LogSigmoid",
    "LogSoftmax",
    "MapTable",
    "MaskedSelect",
    "Masking",
    "Max",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Maxout",
    "Mean",
    "Min",
    "Mish",
    "MixtureTable",
    "Module",
    "Mul",
    "MulConstant",
    "MultiRNNCell",
    "MultiheadAttention",
    "NLLLoss",
    "Narrow",
    "NarrowTable",
    "Negative",
    "NegativeEntropyPenalty",
    "Normalize",
    "NormalizeScale",
    "PReLU",
    "Pack",
    "Padding",
    "PairwiseDistance",
    "ParallelTable",
    "Parameter",
    "Permute",
    "PixelShuffle",
    "PositionalEncoding",
    "Power",
    "RMSNorm",
    "RNNCell",
    "RReLU",
    "ReLU",
    "ReLU6",
    "Reciprocal",
    "Recurrent",
    "RecurrentDecoder",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "Regularizer",
    "Replicate",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "Reshape",
    "ResizeBilinear",
    "Reverse",
    "SReLU",
    "Scale",
    "ScaledDotProductAttention",
    "Select",
    "SelectTable",
    "SeparableConv2d",
    "Sequential",
    "Shape",
    "SiLU",
    "Sigmoid",
    "Sign",
    "Softmax",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "SparseJoinTable",
    "SparseLinear",
    "SpatialContrastiveNormalization",
    "SpatialConvolutionMap",
    "SpatialDivisiveNormalization",
    "SpatialDropout1d",
    "SpatialDropout2d",
    "SpatialDropout3d",
    "SpatialSubtractiveNormalization",
    "SplitTable",
    "Sqrt",
    "Square",
    "Squeeze",
    "Sum",
    "Tanh",
    "Tanhshrink",
    "Threshold",
    "Tile",
    "TimeDistributed",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "Transpose",
    "UnaryLayer",
    "Unflatten",
    "Unsqueeze",
    "UpSampling1d",
    "UpSampling2d",
    "UpSampling3d",
    "View",
    "Wire",
    "WithinChannelLRN",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
    "beam_search",
    "init",
]
__all__ += criterion.__all__
