"""Layers, containers and criterions. Names and semantics are today's standard ones (PyTorch's); labels count from 0."""

from compute.nn import init
from compute.nn.activation import LogSoftmax, ReLU, Tanh
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
from compute.nn.conv import Conv2d
from compute.nn.conv_lstm import ConvLSTMCell
from compute.nn.criterion import Criterion, NLLLoss
from compute.nn.dropout import Dropout, GaussianDropout, GaussianNoise
from compute.nn.embedding import Embedding, EmbeddingBag
from compute.nn.gated_cell import GRUCell, LSTMCell, RNNCell
from compute.nn.layer import CustomLayer, Layer, LayerContext, UnaryLayer
from compute.nn.linear import Linear
from compute.nn.module import Module, Parameter
from compute.nn.multi_cell import MultiRNNCell
from compute.nn.pooling import MaxPool2d
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
    "BiRecurrent",
    "Bottle",
    "CAddTable",
    "Cell",
    "Concat",
    "ConcatTable",
    "Container",
    "Conv2d",
    "ConvLSTMCell",
    "Criterion",
    "CustomLayer",
    "Dropout",
    "Embedding",
    "EmbeddingBag",
    "Flatten",
    "GRUCell",
    "GaussianDropout",
    "GaussianNoise",
    "Graph",
    "Input",
    "JoinTable",
    "LSTMCell",
    "Layer",
    "LayerContext",
    "Linear",
    "LogSoftmax",
    "MapTable",
    "MaxPool2d",
    "Module",
    "MultiRNNCell",
    "NLLLoss",
    "ParallelTable",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Recurrent",
    "RecurrentDecoder",
    "Regularizer",
    "Reshape",
    "Sequential",
    "Shape",
    "Tanh",
    "TimeDistributed",
    "UnaryLayer",
    "init",
]
