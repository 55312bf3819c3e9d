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
from compute.nn.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
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
from compute.nn.cropping import Cropping1d, Cropping2d, Cropping3d
from compute.nn.dropout import Dropout, GaussianDropout, GaussianNoise
from compute.nn.layer import CustomLayer, Layer, LayerContext, UnaryLayer
from compute.nn.linear import Linear
from compute.nn.local_response_norm import LocalResponseNorm, WithinChannelLRN
from compute.nn.module import Module, Parameter
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
from compute.nn.regularizer import L1, L1L2, L2, Regularizer
from compute.nn.reshape import Flatten, Reshape
from compute.nn.table import CAddTable, JoinTable
from compute.nn.wiring import Graph, Input
from compute.spec import Shape

__all__ = [
    "L1",
    "L1L2",
    "L2",
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
    "Bottle",
    "CAddTable",
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
    "Cropping1d",
    "Cropping2d",
    "Cropping3d",
    "CustomLayer",
    "Dropout",
    "Flatten",
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
    "Layer",
    "LayerContext",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "MapTable",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Module",
    "Padding",
    "ParallelTable",
    "Parameter",
    "ReLU",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "Regularizer",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "Reshape",
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
