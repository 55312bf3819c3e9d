"""Highway networks."""

from __future__ import annotations

from compute.nn.container import Composite
from compute.nn.init import Initializer
from compute.nn.linear import Linear
from compute.nn.module import Module
from compute.nn.smooth import Sigmoid, Tanh
from compute.nn.table_arithmetic import CAddTable, CMulTable, CSubTable
from compute.nn.wiring import Graph, Input


class Highway(Composite):
    """y = t * h + (1 - t) * x, with h = activation(Linear(x)) and the gate t = sigmoid(Linear(x)). Shape (..., size).

    Args:
        activation: of h; nn.Tanh() by default.
        gate_bias_init: of the gate's bias, by default as nn.Linear's; the paper starts it negative, such as
            nn.init.Constant(-1), so that samples pass at first.

    Parameters: those of its layers `transform` and `gate`, both nn.Linear(size, size). Srivastava et al. (2015);
    BigDL's Highway.
    """

    def __init__(
        self,
        size: int,
        bias: bool = True,
        activation: Module | None = None,
        gate_bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        x = Input()
        h = (Tanh() if activation is None else activation)(Linear(size, size, bias, name="transform")(x))
        t = Sigmoid()(Linear(size, size, bias, bias_init=gate_bias_init, name="gate")(x))
        super().__init__(Graph(x, CAddTable()(x, CMulTable()(t, CSubTable()(h, x)))), name)
        self.size = size
