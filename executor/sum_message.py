"""Exact sums as they travel (exchange.proto, ExactSum)."""

from compute.optim import ExactSum
from proto.exchange_pb2 import ExactSum as ExactSumMessage
from proto.frames import FrameError

MAX_BYTES = 512
"""More than any sum of doubles needs, and few enough for a hostile shift not to fill the memory."""


def encoded(value: ExactSum) -> ExactSumMessage:
    """The message that stands for a sum."""
    units, shift = value.units, 0
    if units:
        shift = (units & -units).bit_length() - 1
        units >>= shift
    data = units.to_bytes(units.bit_length() // 8 + 1, "little", signed=True)
    return ExactSumMessage(units=data, shift=shift, special=value.special)


def decoded(message: ExactSumMessage) -> ExactSum:
    """The sum that a message stands for.

    Raises:
        FrameError: it is larger than any sum can be.
    """
    if len(message.units) > MAX_BYTES or message.shift > 8 * MAX_BYTES:
        raise FrameError("a sum is out of range")
    return ExactSum(int.from_bytes(message.units, "little", signed=True) << message.shift, message.special)
