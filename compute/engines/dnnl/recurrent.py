"""Recurrent layers over whole sequences: plain RNN, LSTM and GRU with their backward passes.

Sizes: T steps, N samples, L stacked layers, D directions, C inputs, H state, G gates (1, 4, 3). Gates lie in the order
i, f, g, o (as PyTorch's) for the LSTM, and update, reset, new for the GRUs (PyTorch: reset, update, new).
"""

from __future__ import annotations

import math
from ctypes import c_void_p
from dataclasses import dataclass
from enum import StrEnum

from compute.engines.dnnl.api import Api
from compute.engines.dnnl.constants import (
    DIFF_WEIGHTS_OVERWRITE,
    INFERENCE,
    TRAINING,
    Direction,
    Eltwise,
    Propagation,
)
from compute.engines.dnnl.descriptor import Descriptor
from compute.engines.dnnl.operation import Operation


class Cell(StrEnum):
    """Kinds of recurrent cells, by the C interface's names.

    LBR_GRU applies the reset gate behind the product with the state, as PyTorch and cuDNN do: its bias has a fourth
    row, which is added inside that product.
    """

    RNN = "vanilla_rnn"
    LSTM = "lstm"
    GRU = "gru"
    LBR_GRU = "lbr_gru"


@dataclass(frozen=True)
class Sequence:
    """Descriptors of a recurrent layer's arguments, or of their gradients.

    In bfloat16 the bias, the cell's states (`..._c`) and all gradients are float32. The last states may be left out.
    The library would also take first states that are None, for zeros, but its gradient of weights_iter is then wrong.

    Attributes:
        src_layer: (T, N, C); argument SRC_LAYER.
        src_iter: (L, D, N, H), state before the first step; SRC_ITER.
        weights_layer: (L, D, C, G, H); WEIGHTS_LAYER.
        weights_iter: (L, D, H, G, H); WEIGHTS_ITER.
        bias: (L, D, G, H), of LBR_GRU with one gate more; BIAS.
        dst_layer: (T, N, H), or 2 * H when directions are concatenated; DST_LAYER.
        dst_iter: (L, D, N, H); DST_ITER.
        src_iter_c, dst_iter_c: (L, D, N, H), LSTM only; SRC_ITER_C, DST_ITER_C.
        weights_peephole: (L, D, 3, H) for i, f, o, LSTM only; WEIGHTS_PEEPHOLE.
    """

    src_layer: Descriptor
    src_iter: Descriptor
    weights_layer: Descriptor
    weights_iter: Descriptor
    bias: Descriptor | None
    dst_layer: Descriptor
    dst_iter: Descriptor | None = None
    src_iter_c: Descriptor | None = None
    dst_iter_c: Descriptor | None = None
    weights_peephole: Descriptor | None = None

    def arguments(self, cell: Cell) -> list[Descriptor | None]:
        """In the order of the C interface."""
        names = ["src_layer", "src_iter", "weights_layer", "weights_iter", "bias", "dst_layer", "dst_iter"]
        if cell is not Cell.LSTM:
            return [getattr(self, name) for name in names]
        return [
            self.src_layer,
            self.src_iter,
            self.src_iter_c,
            self.weights_layer,
            self.weights_iter,
            self.weights_peephole,
            None,  # projection
            self.bias,
            self.dst_layer,
            self.dst_iter,
            self.dst_iter_c,
        ]


def recurrent(
    api: Api,
    cell: Cell,
    sequence: Sequence,
    direction: Direction = Direction.LEFT_TO_RIGHT,
    activation: Eltwise = Eltwise.TANH,
    training: bool = True,
    attr: c_void_p | None = None,
) -> Operation:
    """Arguments as in `Sequence`, in training also WORKSPACE. `activation` is the plain RNN's: RELU, TANH, LOGISTIC."""
    steps, samples, _ = sequence.src_layer.dims
    weights = math.prod(sequence.weights_layer.dims) + math.prod(sequence.weights_iter.dims)
    flags = DIFF_WEIGHTS_OVERWRITE
    before, after = _around(cell, direction, activation, flags)
    return Operation(
        api,
        f"{cell.value}_forward",
        TRAINING if training else INFERENCE,
        *before,
        *sequence.arguments(cell),
        *after,
        attr=attr,
        flops=2.0 * steps * samples * weights,
        geometry=(cell, before, after),
    )


def recurrent_backward(forward: Operation, sequence: Sequence, gradients: Sequence) -> Operation:
    """Arguments: all of the forward operation's with WORKSPACE, and `diff` of each of them.

    The layouts of weights differ from the forward operation's. Gradients of weights are overwritten.
    """
    cell, before, after = forward.geometry
    return Operation(
        forward.api,
        f"{cell.value}_backward",
        Propagation.BACKWARD,
        *before,
        *sequence.arguments(cell),
        *gradients.arguments(cell),
        *after,
        forward,
        flops=2 * forward.flops,
    )


def _around(
    cell: Cell, direction: Direction, activation: Eltwise, flags: int
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """What comes before the descriptors and behind them."""
    if cell is Cell.RNN:
        return (int(activation), int(direction)), (flags, 0.0, 0.0)
    return (int(direction),), (flags,)
