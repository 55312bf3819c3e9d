"""Metrics of a validation. Each gives sums over samples, so that parts computed anywhere add up."""

from compute.metrics.accuracy import (
    BinaryAccuracy,
    ConfusionMatrix,
    Top1Accuracy,
    Top5Accuracy,
    TopKAccuracy,
    TreeNNAccuracy,
)
from compute.metrics.curves import ROCAUC, MeanAveragePrecision, PrecisionRecallAUC
from compute.metrics.error import MAE, MSE, Loss, Perplexity
from compute.metrics.metric import Metric
from compute.metrics.ranking import NDCG, HitRatio

__all__ = [
    "MAE",
    "MSE",
    "NDCG",
    "ROCAUC",
    "BinaryAccuracy",
    "ConfusionMatrix",
    "HitRatio",
    "Loss",
    "MeanAveragePrecision",
    "Metric",
    "Perplexity",
    "PrecisionRecallAUC",
    "Top1Accuracy",
    "Top5Accuracy",
    "TopKAccuracy",
    "TreeNNAccuracy",
]
