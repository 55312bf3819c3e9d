"""Criterions: what training makes small. docs/criterions.md says which of BigDL's each one is."""

from compute.nn.criterion.base import Criterion, ElementwiseCriterion, SampleCriterion, SimpleCriterion
from compute.nn.criterion.combined import MultiCriterion, ParallelCriterion
from compute.nn.criterion.cross_entropy import CrossEntropyLoss, NLLLoss
from compute.nn.criterion.gaussian import GaussianLogVarNLLLoss, GaussianNLLLoss, KLDNormalLoss
from compute.nn.criterion.labels import ClassCriterion
from compute.nn.criterion.margin import (
    HingeEmbeddingLoss,
    MarginLoss,
    MarginRankingLoss,
    MultiLabelMarginLoss,
    MultiLabelSoftMarginLoss,
    MultiMarginLoss,
    SoftMarginLoss,
)
from compute.nn.criterion.probability import (
    BCELoss,
    BCEWithLogitsLoss,
    KLDivLoss,
    KullbackLeiblerDivergenceLoss,
    PoissonLoss,
    PoissonNLLLoss,
    PolicyGradientLoss,
)
from compute.nn.criterion.regression import (
    HuberLoss,
    L1Cost,
    L1Loss,
    MeanAbsolutePercentageLoss,
    MeanSquaredLogarithmicLoss,
    MSELoss,
    SmoothL1Loss,
    WeightedSmoothL1Loss,
)
from compute.nn.criterion.sequence import TimeDistributedCriterion, TimeDistributedMaskCriterion
from compute.nn.criterion.similarity import (
    ClassSimplexLoss,
    CosineDistanceLoss,
    CosineEmbeddingLoss,
    CosineProximityLoss,
    DiceLoss,
    DotProductLoss,
    L1HingeEmbeddingLoss,
    TripletMarginLoss,
)
from compute.nn.criterion.transformed import OutputTransform, TransformedCriterion

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "ClassCriterion",
    "ClassSimplexLoss",
    "CosineDistanceLoss",
    "CosineEmbeddingLoss",
    "CosineProximityLoss",
    "Criterion",
    "CrossEntropyLoss",
    "DiceLoss",
    "DotProductLoss",
    "ElementwiseCriterion",
    "GaussianLogVarNLLLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDNormalLoss",
    "KLDivLoss",
    "KullbackLeiblerDivergenceLoss",
    "L1Cost",
    "L1HingeEmbeddingLoss",
    "L1Loss",
    "MSELoss",
    "MarginLoss",
    "MarginRankingLoss",
    "MeanAbsolutePercentageLoss",
    "MeanSquaredLogarithmicLoss",
    "MultiCriterion",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "OutputTransform",
    "ParallelCriterion",
    "PoissonLoss",
    "PoissonNLLLoss",
    "PolicyGradientLoss",
    "SampleCriterion",
    "SimpleCriterion",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TimeDistributedCriterion",
    "TimeDistributedMaskCriterion",
    "TransformedCriterion",
    "TripletMarginLoss",
    "WeightedSmoothL1Loss",
]
