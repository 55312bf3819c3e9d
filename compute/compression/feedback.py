"""Error feedback: what compression loses of one gradient is added to the next."""

from __future__ import annotations

import numpy as np

from compute.compression.codec import Buffer, SliceCodec, Vector


class ErrorFeedback:
    """Of one worker (Seide et al. 2014; Karimireddy et al.: Error feedback fixes SignSGD, 2019).

    Attributes:
        residual: float32 (parameters,), what has not been sent yet, by place in the flat vector.
    """

    def __init__(self, codec: SliceCodec, parameters: int) -> None:
        self._codec = codec
        self.residual = np.zeros(parameters, dtype=np.float32)

    def encode(self, values: Vector, begin: int) -> Buffer:
        """Bytes of the values at `begin` of the flat vector and of what is left over there."""
        end = begin + values.size
        residual = self.residual[begin:end]
        with np.errstate(all="ignore"):
            residual += values
            data = self._codec.encode(residual, begin)
            residual -= self._codec.decode(data, begin, end)
        return data
