"""Layers, containers and criterions. Names and semantics are today's standard ones (PyTorch's); labels count from 0."""

from compute.nn import criterion, init
from compute.nn.activation import LogSoftmax, ReLU, Tanh
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
from compute.nn.conv import Conv2d
from compute.nn.criterion import *  # noqa: F403  (its __all__ is part of ours, below)
from compute.nn.layer import CustomLayer, Layer, LayerContext, UnaryLayer
from compute.nn.linear import Linear
from compute.nn.module import Module, Parameter
from compute.nn.pooling import MaxPool2d
from compute.nn.regularizer import L1, L1L2, L2, Regularizer
from compute.nn.reshape import Flatten, Reshape
from compute.nn.table import CAddTable, JoinTable
from compute.nn.wiring import Graph, Input
from compute.spec import Shape

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "Bottle",
    "CAddTable",
    "Concat",
    "ConcatTable",
    "Container",
    "Conv2d",
    "CustomLayer",
    "Flatten",
    "Graph",
    "Input",
    "JoinTable",
    "Layer",
    "LayerContext",
    "Linear",
    "LogSoftmax",
    "MapTable",
    "MaxPool2d",
    "Module",
    "ParallelTable",
    "Parameter",
    "ReLU",
    "Regularizer",
    "Reshape",
    "Sequential",
    "Shape",
    "Tanh",
    "TimeDistributed",
    "UnaryLayer",
    "init",
]
__all__ += criterion.__all__
