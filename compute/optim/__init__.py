"""Optimizers, gradient clipping, and metrics."""

from compute import metrics
from compute.metrics import *  # noqa: F403  (their __all__ is part of ours, below)
from compute.optim.adagrad import Adadelta, Adagrad, RMSprop
from compute.optim.adam import Adam, Adamax, AdamW
from compute.optim.clipping import Clip, ClipNorm, ClipValue
from compute.optim.ftrl import Ftrl
from compute.optim.groups import Optimizers
from compute.optim.lbfgs import LBFGS
from compute.optim.learning_rates import LearningRates
from compute.optim.optimizer import ElementwiseOptimizer, Optimizer
from compute.optim.sgd import LARS, SGD
from compute.optim.sums import ExactSum, sum_block
from compute.optim.update import ParameterUpdate

__all__ = [
    "LARS",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Clip",
    "ClipNorm",
    "ClipValue",
    "ElementwiseOptimizer",
    "ExactSum",
    "Ftrl",
    "LearningRates",
    "Optimizer",
    "Optimizers",
    "ParameterUpdate",
    "RMSprop",
    "sum_block",
]
__all__ += metrics.__all__
