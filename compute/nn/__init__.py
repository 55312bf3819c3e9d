"""Layers, containers and criterions. Names and semantics are today's standard ones (PyTorch's); labels count from 0."""

from compute.nn import criterion, init
from compute.nn.activation import LogSoftmax, ReLU, Tanh
from compute.nn.container import Sequential
from compute.nn.conv import Conv2d
from compute.nn.criterion import *  # noqa: F403  (its __all__ is part of ours, below)
from compute.nn.custom import CustomLayer, LayerContext
from compute.nn.linear import Linear
from compute.nn.module import Module, Parameter, Shape
from compute.nn.pooling import MaxPool2d
from compute.nn.reshape import Flatten, Reshape

__all__ = [
    "Conv2d",
    "CustomLayer",
    "Flatten",
    "LayerContext",
    "Linear",
    "LogSoftmax",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Reshape",
    "Sequential",
    "Shape",
    "Tanh",
    "init",
]
__all__ += criterion.__all__
