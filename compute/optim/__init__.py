"""Optimizers and metrics."""

from compute.optim.metrics import Loss, Metric, Top1Accuracy
from compute.optim.optimizer import Optimizer
from compute.optim.sgd import SGD

__all__ = ["SGD", "Loss", "Metric", "Optimizer", "Top1Accuracy"]
