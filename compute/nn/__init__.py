"""Layers, containers and criterions. Names and semantics are today's standard ones (PyTorch's); labels count from 0."""

from compute.nn import criterion, init
from compute.nn.activation import LogSoftmax, ReLU, Tanh
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
from compute.nn.attention import MultiheadAttention, ScaledDotProductAttention
from compute.nn.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from compute.nn.cell import Cell
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
from compute.nn.conv import Conv1d, Conv2d, Conv3d
from compute.nn.conv_lstm import ConvLSTMCell
from compute.nn.criterion import *  # noqa: F403  (its __all__ is part of ours, below)
from compute.nn.cropping import Cropping1d, Cropping2d, Cropping3d
from compute.nn.dropout import Dropout, GaussianDropout, GaussianNoise
from compute.nn.embedding import Embedding, EmbeddingBag
from compute.nn.gated_cell import GRUCell, LSTMCell, RNNCell
from compute.nn.layer import CustomLayer, Layer, LayerContext, UnaryLayer
from compute.nn.linear import Linear
from compute.nn.local_response_norm import LocalResponseNorm, WithinChannelLRN
from compute.nn.module import Module, Parameter
from compute.nn.multi_cell import MultiRNNCell
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
from compute.nn.pooling import AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d
from compute.nn.position import LearnedPositionalEncoding, PositionalEncoding
from compute.nn.recurrent import BiRecurrent, Recurrent, RecurrentDecoder
from compute.nn.regularizer import L1, L1L2, L2, Regularizer
from compute.nn.reshape import Flatten, Reshape
from compute.nn.rnn import GRU, LSTM, RNN
from compute.nn.table import CAddTable, JoinTable
from compute.nn.wiring import Graph, Input
from compute.spec import Shape

__all__ = [
    "GRU",
    "L1",
    "L1L2",
    "L2",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BiRecurrent",
    "Bottle",
    "CAddTable",
    "Cell",
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "Concat",
    "ConcatTable",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "Container",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvLSTMCell",
    "Cropping1d",
    "Cropping2d",
    "Cropping3d",
    "CustomLayer",
    "Dropout",
    "Embedding",
    "EmbeddingBag",
    "Flatten",
    "GRUCell",
    "GaussianDropout",
    "GaussianNoise",
    "GlobalAvgPool1d",
    "GlobalAvgPool2d",
    "GlobalAvgPool3d",
    "GlobalMaxPool1d",
    "GlobalMaxPool2d",
    "GlobalMaxPool3d",
    "Graph",
    "Input",
    "JoinTable",
    "LSTMCell",
    "Layer",
    "LayerContext",
    "LearnedPositionalEncoding",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "MapTable",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Module",
    "MultiRNNCell",
    "MultiheadAttention",
    "Padding",
    "ParallelTable",
    "Parameter",
    "PositionalEncoding",
    "RNNCell",
    "ReLU",
    "Recurrent",
    "RecurrentDecoder",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "Regularizer",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "Reshape",
    "ScaledDotProductAttention",
    "Sequential",
    "Shape",
    "Tanh",
    "TimeDistributed",
    "UnaryLayer",
    "WithinChannelLRN",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
    "init",
]
__all__ += criterion.__all__
