"""Numbers of oneDNN 3's headers dnnl_types.h and dnnl_common_types.h, whose C ABI is stable over all 3.x."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

MAX_DIMS = 12


class DataType(IntEnum):
    """dnnl_data_type_t: type of an element."""

    BF16 = 2
    F32 = 3
    S32 = 4
    S8 = 5
    U8 = 6

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The numpy type that holds it; bfloat16, which numpy lacks, as the upper half of a float32 in uint16."""
        return np.dtype(_NUMPY[self])

    @property
    def size_bytes(self) -> int:
        """Bytes of an element."""
        return self.numpy.itemsize


_NUMPY: dict[DataType, type[np.generic]] = {
    DataType.BF16: np.uint16,
    DataType.F32: np.float32,
    DataType.S32: np.int32,
    DataType.S8: np.int8,
    DataType.U8: np.uint8,
}

BF16, F32, S32, S8, U8 = DataType

FORMAT_TAG_ANY = 1
"""dnnl_format_tag_t: the primitive chooses."""

BLOCKED_TAGS = {
    "aBc16b": 56, "aBcd16b": 78, "aBcde16b": 121,  # activations, 16 channels together (AVX-512)
    "aBc8b": 69, "aBcd8b": 102, "aBcde8b": 142,  # and 8 (AVX2)
    "ABcd16b16a": 79, "ABcd8b8a": 107,  # weights (out, in, h, w)
    "aBCde16c16b": 124,  # weights with groups
}  # fmt: skip
"""dnnl_format_tag_t of blocked layouts by their names: letters are dimensions from the outermost in, a capital one is
cut into blocks, and what follows are the blocks' sizes. For plain layouts strides do."""


class Query(IntEnum):
    """dnnl_query_t."""

    MEMORY_CONSUMPTION_S64 = 6
    IMPLEMENTATION = 8
    STRIDES = 14
    WORKSPACE = 135
    SCRATCHPAD = 136
    EXEC_ARG = 255
    NDIMS_S32 = 256
    DIMS = 257
    DATA_TYPE = 258
    OFFSET_S64 = 259
    PADDED_DIMS = 260
    FORMAT_KIND = 262
    INNER_BLOCKS_S32 = 263


FORMAT_KIND_BLOCKED = 2
"""dnnl_format_kind_t of everything that strides and blocks describe."""


class Propagation(IntEnum):
    """dnnl_prop_kind_t."""

    TRAINING = 64
    INFERENCE = 96
    BACKWARD = 128
    BACKWARD_DATA = 160


TRAINING, INFERENCE = Propagation.TRAINING, Propagation.INFERENCE


class Convolution(IntEnum):
    """dnnl_alg_kind_t of convolutions and (at + 9) deconvolutions."""

    DIRECT = 1
    WINOGRAD = 2
    AUTO = 3


class Eltwise(IntEnum):
    """dnnl_alg_kind_t of element-wise functions of x with parameters alpha, beta."""

    RELU = 0x20  # x if x > 0 else alpha * x
    TANH = 0x21
    ELU = 0x22  # x if x > 0 else alpha * (exp(x) - 1)
    SQUARE = 0x23
    ABS = 0x24
    SQRT = 0x25
    LINEAR = 0x26  # alpha * x + beta
    SOFT_RELU = 0x27  # log(1 + exp(alpha * x)) / alpha
    HARD_SIGMOID = 0x28  # max(0, min(1, alpha * x + beta))
    LOGISTIC = 0x29
    EXP = 0x2A
    GELU_TANH = 0x2B
    SWISH = 0x2C  # x / (1 + exp(-alpha * x))
    LOG = 0x2D
    CLIP = 0x2E  # backward: zero only outside of (alpha, beta]
    CLIP_V2 = 0x2F  # backward: zero also at the upper bound
    POW = 0x30  # alpha * x ** beta
    GELU_ERF = 0x31
    ROUND = 0x32  # to the nearest even; float32 only, no backward
    MISH = 0x33
    HARD_SWISH = 0x34  # x * max(0, min(1, alpha * x + beta))
    # The same functions, whose backward takes the result and not x.
    RELU_FROM_DST = 0x100
    TANH_FROM_DST = 0x101
    ELU_FROM_DST = 0x102
    SQRT_FROM_DST = 0x103
    LOGISTIC_FROM_DST = 0x104
    EXP_FROM_DST = 0x105
    CLIP_V2_FROM_DST = 0x106

    @property
    def from_dst(self) -> bool:
        """Whether the backward pass takes the forward pass's result instead of its input."""
        return self >= Eltwise.RELU_FROM_DST


RELU, TANH = Eltwise.RELU, Eltwise.TANH
RELU_FROM_DST, TANH_FROM_DST = Eltwise.RELU_FROM_DST, Eltwise.TANH_FROM_DST


class Binary(IntEnum):
    """dnnl_alg_kind_t of functions of two arrays; comparisons give 0 and 1."""

    ADD = 0x1FFF0
    MUL = 0x1FFF1
    MAX = 0x1FFF2
    MIN = 0x1FFF3
    DIV = 0x1FFF4
    SUB = 0x1FFF5
    GE = 0x1FFF6
    GT = 0x1FFF7
    LE = 0x1FFF8
    LT = 0x1FFF9
    EQ = 0x1FFFA
    NE = 0x1FFFB


BINARY_ADD = Binary.ADD


class Pooling(IntEnum):
    """dnnl_alg_kind_t of pooling; averages count the padding as zeros, or leave it out."""

    MAX = 0x1FF
    AVERAGE_INCLUDE_PADDING = 0x2FF
    AVERAGE_EXCLUDE_PADDING = 0x3FF


POOLING_MAX = Pooling.MAX


class Softmax(IntEnum):
    """dnnl_alg_kind_t of softmax."""

    SOFTMAX = 0x30000
    LOG_SOFTMAX = 0x30001


class Lrn(IntEnum):
    """dnnl_alg_kind_t of local response normalization."""

    ACROSS_CHANNELS = 0xAFF
    WITHIN_CHANNEL = 0xBFF


class Reduction(IntEnum):
    """dnnl_alg_kind_t of reductions; the norms take p and epsilon."""

    MAX = 0x2FFF2
    MIN = 0x2FFF3
    SUM = 0x2FFF4
    MUL = 0x2FFF5
    MEAN = 0x2FFF6
    NORM_LP_MAX = 0x2FFF7  # max(sum |x|^p, eps) ** (1 / p)
    NORM_LP_SUM = 0x2FFF8  # (sum |x|^p + eps) ** (1 / p)


class Resampling(IntEnum):
    """dnnl_alg_kind_t of up- and downsampling."""

    NEAREST = 0x2FFF0
    LINEAR = 0x2FFF1


class Direction(IntEnum):
    """dnnl_rnn_direction_t."""

    LEFT_TO_RIGHT = 1
    RIGHT_TO_LEFT = 2
    BIDIRECTIONAL_CONCAT = 3
    BIDIRECTIONAL_SUM = 4


class FpMath(IntEnum):
    """dnnl_fpmath_mode_t: what float32 kernels may compute in."""

    STRICT = 0
    BF16 = 1
    ANY = 3


DIFF_WEIGHTS_OVERWRITE = 1
"""Flag of recurrent layers: the weights' gradients are written, not added."""

# Flags of normalizations
USE_GLOBAL_STATS, USE_SCALE, USE_SHIFT, FUSE_RELU, FUSE_ADD_RELU = 1, 2, 4, 8, 16

# Arguments of dnnl_primitive_execute
SRC, SRC_1, SRC_2 = 1, 2, 3
DST, DST_1, DST_2 = 17, 18, 19
WEIGHTS, WEIGHTS_1, WEIGHTS_2, WEIGHTS_3 = 33, 34, 35, 36
BIAS, MEAN, VARIANCE, SCALE, SHIFT, WORKSPACE, SCRATCHPAD = 41, 49, 50, 51, 52, 64, 80
DIFF_SRC, DIFF_SRC_1, DIFF_SRC_2 = 129, 130, 131
DIFF_DST, DIFF_DST_1, DIFF_DST_2 = 145, 146, 147
DIFF_WEIGHTS, DIFF_WEIGHTS_1, DIFF_WEIGHTS_2, DIFF_WEIGHTS_3 = 161, 162, 163, 164
DIFF_BIAS, DIFF_SCALE, DIFF_SHIFT = 169, 255, 256
MULTIPLE_SRC = 1024
"""Source i of a sum or a concatenation is argument MULTIPLE_SRC + i."""
_POST_OP = 32768

# The recurrent primitives' names of some.
SRC_LAYER, SRC_ITER, SRC_ITER_C = SRC, SRC_1, SRC_2
DST_LAYER, DST_ITER, DST_ITER_C = DST, DST_1, DST_2
WEIGHTS_LAYER, WEIGHTS_ITER, WEIGHTS_PEEPHOLE, WEIGHTS_PROJECTION = WEIGHTS, WEIGHTS_1, WEIGHTS_2, WEIGHTS_3


def post_op_argument(index: int) -> int:
    """The argument that is the second operand of the binary post-op at place `index`."""
    return _POST_OP * (index + 1) | SRC_1


def diff(argument: int) -> int:
    """The gradient of an argument: DIFF_SRC of SRC, and so on (not of SCALE and SHIFT)."""
    return argument + 128
