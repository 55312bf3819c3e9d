"""How gradients are made smaller on their way from workers to servers: codecs as pure functions of the values.

| name | bytes per element | reference |
| --- | --- | --- |
| none | 4 | |
| bf16 | 2 | rounded to the nearest bfloat16, ties to even |
| fp16 | 2 | times 2^10, rounded to the nearest IEEE 754 binary16; 64 at the most |
| topk:RATIO | 8 * RATIO | the largest of each slice; Aji, Heafield: Sparse communication for distributed SGD, 2017 |
| 8bit | 1 | linear, a scale for each 1024; Dettmers: 8-bit approximations for parallelism in deep learning, 2016 |
| 1bit | 1/8 | signs, two values for each 1024; Seide et al.: 1-bit stochastic gradient descent, 2014 |

bf16 and fp16 (`Rounding`) round every node of the reduction tree, the micro-batches' gradients included, and what is
rounded travels without loss: the sum of two nodes, rounded, is the same wherever it is made, so who computed what does
not show. The others keep what they lost, and add it to the next gradient (`ErrorFeedback`). That is a worker's own
history, so results do depend on which worker computed what.
"""

from __future__ import annotations

import re

from compute.compression.codec import Codec, Plain, SliceCodec
from compute.compression.feedback import ErrorFeedback
from compute.compression.quantized import OneBit, Quantized8
from compute.compression.rounding import BFloat16, Float16, Rounding
from compute.compression.sparse import TopK
from compute.errors import InputError

__all__ = ["Codec", "ErrorFeedback", "Plain", "Rounding", "SliceCodec", "parse"]

_SIMPLE: dict[str, type[Plain] | type[BFloat16] | type[Float16] | type[Quantized8] | type[OneBit]] = {
    "none": Plain, "bf16": BFloat16, "fp16": Float16, "8bit": Quantized8, "1bit": OneBit,
}


def parse(text: str) -> Codec:
    """The codec of that name.

    Raises:
        InputError: there is none.
    """
    if isinstance(text, str) and text in _SIMPLE:
        return _SIMPLE[text]()
    match = re.fullmatch(r"topk:(\d*\.?\d+)", text) if isinstance(text, str) else None
    if match is not None and 0 < float(match[1]) <= 1:
        return TopK(float(match[1]))
    raise InputError(
        'compression must be "none", "bf16", "fp16", "topk:RATIO" with a ratio in (0, 1] such as topk:0.01, "8bit" or '
        f'"1bit", got {text!r}'
    )
