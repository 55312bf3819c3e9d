"""docs/coming-from-bigdl.md names what exists, and all that BigDL had."""

from __future__ import annotations

import re
from pathlib import Path

from compute import nn

TEXT = (Path(__file__).parents[2] / "docs" / "coming-from-bigdl.md").read_text()
BIGDL = """
Sequential Graph Concat ConcatTable ParallelTable MapTable Bottle TimeDistributed
Linear Bilinear LookupTable LookupTableSparse SparseLinear SparseJoinTable DenseToSparse Cosine Euclidean Maxout Highway
SpatialConvolution SpatialDilatedConvolution SpatialFullConvolution SpatialSeparableConvolution SpatialShareConvolution
SpatialConvolutionMap TemporalConvolution VolumetricConvolution VolumetricFullConvolution LocallyConnected1D
LocallyConnected2D UpSampling1D UpSampling2D UpSampling3D ResizeBilinear
SpatialMaxPooling TemporalMaxPooling VolumetricMaxPooling SpatialAveragePooling VolumetricAveragePooling RoiPooling
RoiAlign
BatchNormalization SpatialBatchNormalization SpatialCrossMapLRN SpatialWithinChannelLRN SpatialContrastiveNormalization
SpatialDivisiveNormalization SpatialSubtractiveNormalization Normalize NormalizeScale LayerNormalization
Dropout GaussianDropout GaussianNoise GaussianSampler SpatialDropout1D SpatialDropout2D SpatialDropout3D
ReLU ReLU6 PReLU RReLU SReLU LeakyReLU ELU Sigmoid HardSigmoid LogSigmoid Tanh HardTanh TanhShrink HardShrink SoftShrink
SoftMax SoftMin SoftPlus SoftSign LogSoftMax Threshold BinaryThreshold
Recurrent BiRecurrent RecurrentDecoder MultiRNNCell RnnCell LSTM LSTMPeephole GRU ConvLSTMPeephole ConvLSTMPeephole3D
BinaryTreeLSTM
Attention FeedForwardNetwork Transformer SequenceBeamSearch
Anchor PriorBox Proposal RegionProposal FPN Pooler BoxHead MaskHead Nms DetectionOutputSSD DetectionOutputFrcnn
CAddTable CSubTable CMulTable CDivTable CMaxTable CMinTable CAveTable JoinTable SplitTable SelectTable NarrowTable
FlattenTable MM MV DotProduct Reshape View Transpose Squeeze Narrow Select Padding Cropping2D Masking GradientReversal
L1Penalty Abs Square Sqrt Exp Log Power Clamp Negative AddConstant MulConstant Mul CMul Add CAdd Scale Mean Sum Max Min
ClassNLLCriterion CrossEntropyCriterion MSECriterion Xavier MsraFiller BilinearFiller ActivityRegularization
"""

def rows() -> list[list[str]]:
    """Cells of the tables' rows, without heads."""
    lines = [line for line in TEXT.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] not in ("BigDL", "---")]


def test_every_class_that_is_named_exists() -> None:
    named = set(re.findall(r"\bnn\.((?:init\.)?[A-Z]\w*)", TEXT))
    missing = {
        name
        for name in named
        if not hasattr(nn.init if name.startswith("init.") else nn, name.removeprefix("init."))
    }
    assert not missing


def test_every_layer_of_bigdl_is_listed_once_with_what_replaces_it() -> None:
    found = [name.strip() for row in rows() for name in row[0].split(",") if name.strip()]
    assert not set(BIGDL.split()) - set(found)
    assert len(found) == len(set(found))
    for row in rows():
        assert re.search(r"`(nn|compute)\.|missing|not needed", row[1]), row
        assert "missing" not in row[1] or len(row[-1]) > 20, f"{row[0]}: no reason given"
