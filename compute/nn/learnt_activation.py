"""Activations that are learnt or random."""

from __future__ import annotations

import numpy as np

from compute.errors import InputError
from compute.nn.broadcast import sum_for_parameter
from compute.nn.container import Composite, Sequential
from compute.nn.init import Constant, Initializer, Ones, Zeros
from compute.nn.layer import Array, Arrayed, LayerContext, UnaryLayer
from compute.nn.linear import Linear
from compute.nn.module import Parameter, positive
from compute.nn.reduction import Max
from compute.nn.reshape import Reshape
from compute.spec import Shape


class PReLU(UnaryLayer):
    """x where x > 0, else weight * x; one weight for all, or one for each channel (dimension 0 of the sample).

    Parameters: `weight` (num_parameters,), starting at `init`. He et al. (2015); torch.nn.PReLU.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, name: str | None = None) -> None:
        super().__init__(name)
        positive(self.kind, num_parameters=num_parameters)
        self.num_parameters = num_parameters
        self.init = float(init)

    def output_shape(self, input_shape: Shape) -> Shape:
        if self.num_parameters > 1 and (not input_shape or input_shape[0] != self.num_parameters):
            raise InputError(f"needs ({self.num_parameters}, ...)")
        return input_shape

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        return [Parameter("weight", (self.num_parameters,), Constant(self.init))]

    def _slopes(self, x: Array, parameters: Arrayed) -> Array:
        if self.num_parameters == 1:
            return parameters["weight"]
        return parameters["weight"].reshape(-1, *(1,) * (x.ndim - 2))

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        return np.where(x > 0, x, x * self._slopes(x, parameters))

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        slopes = self._slopes(x, parameters)
        each = grad_y * np.minimum(x, np.float32(0))
        gradients["weight"] += sum_for_parameter(each, slopes.shape).reshape(-1)
        return np.where(x > 0, grad_y, grad_y * slopes)


class RReLU(UnaryLayer):
    """x where x > 0, else slope * x; in training slopes are drawn uniformly from lower..upper, else their mean.

    Any shape. Slopes are lower plus multiples of (upper - lower) / 65536. Xu et al. (2015); torch.nn.RReLU.
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, name: str | None = None) -> None:
        super().__init__(name)
        if not 0 <= lower <= upper <= 1:
            raise InputError(f"RReLU needs 0 <= lower <= upper <= 1, got {lower!r} and {upper!r}")
        self.lower, self.upper = float(lower), float(upper)

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        slopes: Array = np.full((1,) * x.ndim, (self.lower + self.upper) / 2, dtype=np.float32)
        if context.training:
            slopes = context.stream().words16(x.size).astype(np.float32).reshape(x.shape)
            slopes *= np.float32((self.upper - self.lower) / 65536)
            slopes += np.float32(self.lower)
        context.saved["slopes"] = slopes
        return np.where(x > 0, x, x * slopes)

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        return np.where(x > 0, grad_y, grad_y * context.saved["slopes"])


class SReLU(UnaryLayer):
    """S-shaped ReLU: three straight pieces whose slopes and bends are learnt, for each element of the sample.

    y = left + left_slope * (x - left) where x < left, y = right + right_slope * (x - right) where x > right, y = x
    between; right = left + |right_distance|, so that the bends keep their order.

    Args:
        shared_dims: dimensions of the sample along which elements share their parameters, e.g. (1, 2) for one set for
            each channel of an image.

    Parameters: `left`, `left_slope`, `right_distance`, `right_slope`, each of the sample's shape with 1 for shared
    dimensions, starting at 0, 0.2, 1 and 1. Jin et al. (2016).
    """

    def __init__(self, shared_dims: tuple[int, ...] = (), name: str | None = None) -> None:
        super().__init__(name)
        if not all(isinstance(dim, int) and not isinstance(dim, bool) and dim >= 0 for dim in shared_dims):
            raise InputError(f"SReLU: shared_dims must be whole numbers that are not negative, got {shared_dims!r}")
        self.shared_dims = tuple(shared_dims)

    def output_shape(self, input_shape: Shape) -> Shape:
        if any(dim >= len(input_shape) for dim in self.shared_dims):
            raise InputError(f"the samples have no dimension {max(self.shared_dims)}")
        return input_shape

    def parameters(self, input_shape: Shape) -> list[Parameter]:
        shape = tuple(1 if dim in self.shared_dims else size for dim, size in enumerate(input_shape))
        starts: dict[str, Initializer] = {
            "left": Zeros(),
            "left_slope": Constant(0.2),
            "right_distance": Ones(),
            "right_slope": Ones(),
        }
        return [Parameter(name, shape, start) for name, start in starts.items()]

    def forward(self, x: Array, parameters: Arrayed, context: LayerContext) -> Array:
        left, right = self._bends(parameters)
        below = left + parameters["left_slope"] * (x - left)
        above = right + parameters["right_slope"] * (x - right)
        return np.where(x < left, below, np.where(x > right, above, x))

    def backward(
        self, x: Array, y: Array, grad_y: Array, parameters: Arrayed, gradients: Arrayed, context: LayerContext
    ) -> Array:
        left, right = self._bends(parameters)
        slope_left, slope_right = parameters["left_slope"], parameters["right_slope"]
        zero, one = np.float32(0), np.float32(1)
        below = np.where(x < left, grad_y, zero)
        above = np.where(x > right, grad_y, zero)
        grad_right = above * (one - slope_right)
        each = {
            "left": below * (one - slope_left) + grad_right,
            "left_slope": below * (x - left),
            "right_distance": grad_right * np.sign(parameters["right_distance"]),
            "right_slope": above * (x - right),
        }
        for name, grad in each.items():
            gradients[name] += sum_for_parameter(grad, gradients[name].shape)
        return np.asarray(grad_y - below - above + below * slope_left + above * slope_right)

    @staticmethod
    def _bends(parameters: Arrayed) -> tuple[Array, Array]:
        return parameters["left"], parameters["left"] + np.abs(parameters["right_distance"])


class Maxout(Composite):
    """The largest of pool_size linear functions, for each output: (in_features,) to (out_features,).

    y_o = max over p of weight[p * out_features + o] . x + bias[p * out_features + o]

    Parameters: those of its nn.Linear(in_features, out_features * pool_size). Goodfellow et al. (2013); BigDL's Maxout.
    """

    def __init__(
        self, in_features: int, out_features: int, pool_size: int, bias: bool = True, name: str | None = None
    ) -> None:
        positive(self.kind, in_features=in_features, out_features=out_features, pool_size=pool_size)
        pieces = Linear(in_features, out_features * pool_size, bias, name="linear")
        super().__init__(Sequential(pieces, Reshape(pool_size, out_features), Max(0)), name)
        self.in_features, self.out_features, self.pool_size = in_features, out_features, pool_size
