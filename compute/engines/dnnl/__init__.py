"""oneDNN's C API (v3) through ctypes, which lets go of the GIL.

```python
api = Api()
src, weights = api.any((16, 64, 32, 32), BF16), api.any((64, 64, 3, 3), BF16)
bias, dst = api.strided((64,)), api.any((16, 64, 32, 32), BF16)
forward = convolution(api, src, weights, bias, dst, stride=(1, 1), padding=(1, 1))   # Unimplemented if it is
x = api.memory(forward.layout(SRC))              # a buffer in the layout that the kernel chose
call = forward.bind({SRC: x, WEIGHTS: w, BIAS: b, DST: y})
call()                                           # 0, or an error code
call.record                                      # Record(name, implementation, flops, size_bytes)
```

Functions with `backward` in their names take the forward operation and repeat its geometry.
"""

from compute.engines.call import Call, Record
from compute.engines.dnnl.api import Api, Scratchpad
from compute.engines.dnnl.constants import *  # noqa: F403
from compute.engines.dnnl.convolution import (
    convolution,
    convolution_backward_data,
    convolution_backward_weights,
    deconvolution,
)
from compute.engines.dnnl.descriptor import Descriptor, Memory
from compute.engines.dnnl.errors import DnnlError, Unimplemented
from compute.engines.dnnl.normalization import (
    batch_normalization,
    batch_normalization_backward,
    layer_normalization,
    layer_normalization_backward,
    local_response_normalization,
    local_response_normalization_backward,
    softmax,
    softmax_backward,
)
from compute.engines.dnnl.operation import Operation
from compute.engines.dnnl.pointwise import (
    binary,
    concat,
    copy,
    eltwise,
    eltwise_backward,
    prelu,
    prelu_backward,
    reduction,
    reorder,
    shuffle,
    shuffle_backward,
    weighted_sum,
)
from compute.engines.dnnl.pooling import pooling, pooling_backward, resampling, resampling_backward
from compute.engines.dnnl.post_ops import BinaryPostOp, EltwisePostOp, PostOp, SumPostOp
from compute.engines.dnnl.products import (
    inner_product,
    inner_product_backward_data,
    inner_product_backward_weights,
    matmul,
)
from compute.engines.dnnl.recurrent import Cell, Sequence, recurrent, recurrent_backward

__all__ = [
    "Api",
    "BinaryPostOp",
    "Call",
    "Cell",
    "Descriptor",
    "DnnlError",
    "EltwisePostOp",
    "Memory",
    "Operation",
    "PostOp",
    "Record",
    "Scratchpad",
    "Sequence",
    "SumPostOp",
    "Unimplemented",
    "batch_normalization",
    "batch_normalization_backward",
    "binary",
    "concat",
    "convolution",
    "convolution_backward_data",
    "convolution_backward_weights",
    "copy",
    "deconvolution",
    "eltwise",
    "eltwise_backward",
    "inner_product",
    "inner_product_backward_data",
    "inner_product_backward_weights",
    "layer_normalization",
    "layer_normalization_backward",
    "local_response_normalization",
    "local_response_normalization_backward",
    "matmul",
    "pooling",
    "pooling_backward",
    "prelu",
    "prelu_backward",
    "recurrent",
    "recurrent_backward",
    "reduction",
    "reorder",
    "resampling",
    "resampling_backward",
    "shuffle",
    "shuffle_backward",
    "softmax",
    "softmax_backward",
    "weighted_sum",
]
