"""The standard recurrent cells: RNNCell, LSTMCell, GRUCell. Names and order of gates are PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np

from compute.errors import InputError
from compute.nn.cell import Cell, States
from compute.nn.init import FanIn, Initializer
from compute.nn.layer import Array, Arrayed
from compute.nn.module import Parameter, positive
from compute.spec import Shape

ONE = np.float32(1)


class GatedCell(Cell):
    """Base of cells made of one linear map of the input and one of the output state.

    Parameters: `weight_ih` (gates * hidden_size, input_size), `weight_hh` (gates * hidden_size, hidden_size), and with
    bias `bias_ih` and `bias_hh` (gates * hidden_size,), all starting uniform in +-1/sqrt(hidden_size).

    Attributes:
        gates: how many vectors of hidden_size the maps give, joined.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        positive(self.kind, input_size=input_size, hidden_size=hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self.weight_init = weight_init or FanIn(hidden_size)
        self.bias_init = bias_init or FanIn(hidden_size)

    def state_shapes(self, input_shape: Shape) -> tuple[Shape, ...]:
        if input_shape != (self.input_size,):
            raise InputError(f"needs inputs of {self.input_size} features at each step")
        return ((self.hidden_size,),) * self.states

    def parameters(self, input_shape: Shape, *others: Shape) -> list[Parameter]:
        rows = self.gates * self.hidden_size
        found = [
            Parameter("weight_ih", (rows, *self.fan_shape(self.input_size)), self.weight_init),
            Parameter("weight_hh", (rows, *self.fan_shape(self.hidden_size)), self.weight_init),
        ]
        if self.bias:
            found += [Parameter(name, (rows,), self.bias_init) for name in ("bias_ih", "bias_hh")]
        return found

    def fan_shape(self, size: int) -> Shape:
        """Shape of what a row of a map has for inputs of this size."""
        return (size,)

    def map(self, x: Array, weight: Array) -> Array:
        """The linear map of rows."""
        y: Array = x @ weight.T
        return y

    def map_backward(self, grad: Array, weight: Array) -> Array:
        """The gradient for the map's input."""
        grad_x: Array = grad @ weight
        return grad_x

    def map_gradient(self, grad: Array, x: Array, weight: Array) -> Array:
        """The gradient of the map's weight."""
        grad_weight: Array = grad.T @ x
        return grad_weight

    def spread(self, vector: Array, like: Array) -> Array:
        """A vector over dimension 1 of arrays such as `like`, to be broadcast."""
        return vector.reshape(-1, *(1,) * (like.ndim - 2))

    def project(self, x: Array, parameters: Arrayed) -> Array:
        z = self.map(x, parameters["weight_ih"])
        if self.bias:
            z += self.spread(self._step_free_bias(parameters), z)
        return z

    def _step_free_bias(self, parameters: Arrayed) -> Array:
        """The bias that the projection can take along."""
        return parameters["bias_ih"] + parameters["bias_hh"]

    def project_backward(self, grad_z: Array, parameters: Arrayed) -> Array:
        return self.map_backward(grad_z, parameters["weight_ih"])

    def accumulate(
        self,
        x: Array,
        before: States,
        after: States,
        grad_z: Array,
        record: tuple[Array, ...],
        parameters: Arrayed,
        gradients: Arrayed,
    ) -> None:
        grad_u = record[0] if record else grad_z
        gradients["weight_ih"] += self.map_gradient(grad_z, x, parameters["weight_ih"])
        gradients["weight_hh"] += self.map_gradient(grad_u, before[0], parameters["weight_hh"])
        if self.bias:
            axes = (0, *range(2, grad_z.ndim))
            grad_bias = grad_z.sum(axis=axes)
            gradients["bias_ih"] += grad_bias
            gradients["bias_hh"] += grad_u.sum(axis=axes) if record else grad_bias


class RNNCell(GatedCell):
    """h' = tanh(weight_ih x + bias_ih + weight_hh h + bias_hh), or relu(...); torch.nn.RNNCell (Elman, 1990).

    (input_size,) and the state h (hidden_size,).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, weight_init, bias_init, name)
        if nonlinearity not in ("tanh", "relu"):
            raise InputError(f"{self.kind}: nonlinearity must be tanh or relu, got {nonlinearity!r}")
        self.nonlinearity = nonlinearity

    def step(self, z: Array, states: States, parameters: Arrayed) -> tuple[States, Any]:
        h = self.map(states[0], parameters["weight_hh"])
        h += z
        if self.nonlinearity == "tanh":
            np.tanh(h, out=h)
        else:
            np.maximum(h, np.float32(0), out=h)
        return (h,), h

    def step_backward(
        self, grads: States, states: States, saved: Any, parameters: Arrayed
    ) -> tuple[Array, States, tuple[Array, ...]]:
        grad_z = grads[0] * (ONE - saved * saved if self.nonlinearity == "tanh" else saved > 0)
        return grad_z, (self.map_backward(grad_z, parameters["weight_hh"]),), ()


class LSTMBase(GatedCell):
    """Formulas of LSTMs, whatever their linear maps; see nn.LSTMCell."""

    gates = 4
    states = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        peephole: bool = False,
        weight_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, weight_init, bias_init, name)
        self.peephole = peephole

    def parameters(self, input_shape: Shape, *others: Shape) -> list[Parameter]:
        names = ("weight_ci", "weight_cf", "weight_co") if self.peephole else ()
        peephole = [Parameter(name, (self.hidden_size,), self.weight_init) for name in names]
        return super().parameters(input_shape) + peephole

    def step(self, z: Array, states: States, parameters: Arrayed) -> tuple[States, Any]:
        h, c = states
        a = self.map(h, parameters["weight_hh"])
        a += z
        i, f, g, o = self._parts(a)
        if self.peephole:
            i += c * self.spread(parameters["weight_ci"], c)
            f += c * self.spread(parameters["weight_cf"], c)
        sigmoid_inplace(a[:, : 2 * self.hidden_size])
        np.tanh(g, out=g)
        after = f * c
        after += i * g
        if self.peephole:
            o += after * self.spread(parameters["weight_co"], c)
        sigmoid_inplace(o)
        squashed = np.tanh(after)
        return (o * squashed, after), (a, squashed)

    def step_backward(
        self, grads: States, states: States, saved: Any, parameters: Arrayed
    ) -> tuple[Array, States, tuple[Array, ...]]:
        (grad_h, grad_c), (_, c), (a, squashed) = grads, states, saved
        i, f, g, o = self._parts(a)
        grad_a = np.empty_like(a)
        grad_i, grad_f, grad_g, grad_o = self._parts(grad_a)
        np.multiply(grad_h * squashed, o * (ONE - o), out=grad_o)
        total = grad_c + grad_h * o * (ONE - squashed * squashed)
        if self.peephole:
            total += grad_o * self.spread(parameters["weight_co"], c)
        np.multiply(total * g, i * (ONE - i), out=grad_i)
        np.multiply(total * c, f * (ONE - f), out=grad_f)
        np.multiply(total * i, ONE - g * g, out=grad_g)
        grad_c = total * f
        if self.peephole:
            grad_c += grad_i * self.spread(parameters["weight_ci"], c)
            grad_c += grad_f * self.spread(parameters["weight_cf"], c)
        return grad_a, (self.map_backward(grad_a, parameters["weight_hh"]), grad_c), ()

    def accumulate(
        self,
        x: Array,
        before: States,
        after: States,
        grad_z: Array,
        record: tuple[Array, ...],
        parameters: Arrayed,
        gradients: Arrayed,
    ) -> None:
        super().accumulate(x, before, after, grad_z, record, parameters, gradients)
        if self.peephole:
            grad_i, grad_f, _, grad_o = self._parts(grad_z)
            axes = (0, *range(2, grad_z.ndim))
            gradients["weight_ci"] += (grad_i * before[1]).sum(axis=axes)
            gradients["weight_cf"] += (grad_f * before[1]).sum(axis=axes)
            gradients["weight_co"] += (grad_o * after[1]).sum(axis=axes)

    def _parts(self, a: Array) -> tuple[Array, Array, Array, Array]:
        """Views of the gates i, f, g, o."""
        size = self.hidden_size
        return a[:, :size], a[:, size : 2 * size], a[:, 2 * size : 3 * size], a[:, 3 * size :]


class LSTMCell(LSTMBase):
    """Long short-term memory; torch.nn.LSTMCell (Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000).

    With a = weight_ih x + bias_ih + weight_hh h + bias_hh, its four parts of hidden_size in the order i, f, g, o:
        i = sigmoid(a_i)   f = sigmoid(a_f)   g = tanh(a_g)   o = sigmoid(a_o)
        c' = f c + i g     h' = o tanh(c')
    and with peephole=True (Gers, Schraudolph and Schmidhuber, 2002; BigDL's LSTMPeephole) a_i += weight_ci c,
    a_f += weight_cf c, a_o += weight_co c', element by element.

    (input_size,) and the states h, c (hidden_size,). Parameters besides GatedCell's, for the peephole: `weight_ci`,
    `weight_cf`, `weight_co` (hidden_size,).
    """


class GRUCell(GatedCell):
    """Gated recurrent unit; torch.nn.GRUCell (Cho et al., 2014, with the reset gate behind the map of the state).

    With z = weight_ih x + bias_ih and u = weight_hh h + bias_hh, their three parts in the order r, z, n:
        r = sigmoid(z_r + u_r)   z = sigmoid(z_z + u_z)   n = tanh(z_n + r u_n)   h' = (1 - z) n + z h

    (input_size,) and the state h (hidden_size,).
    """

    gates = 3
    records = 1

    def _step_free_bias(self, parameters: Arrayed) -> Array:
        return parameters["bias_ih"]

    def step(self, z: Array, states: States, parameters: Arrayed) -> tuple[States, Any]:
        (h,), size = states, self.hidden_size
        u = self.map(h, parameters["weight_hh"])
        if self.bias:
            u += self.spread(parameters["bias_hh"], u)
        gates = u[:, : 2 * size]
        gates += z[:, : 2 * size]
        sigmoid_inplace(gates)
        reset, update, recurrent = u[:, :size], u[:, size : 2 * size], u[:, 2 * size :]
        new = reset * recurrent
        new += z[:, 2 * size :]
        np.tanh(new, out=new)
        after = h - new
        after *= update
        after += new
        return (after,), (reset, update, recurrent, new)

    def step_backward(
        self, grads: States, states: States, saved: Any, parameters: Arrayed
    ) -> tuple[Array, States, tuple[Array, ...]]:
        (grad_h,), (h,), (reset, update, recurrent, new) = grads, states, saved
        grad_new = grad_h * (ONE - update) * (ONE - new * new)
        grad_update = grad_h * (h - new) * (update * (ONE - update))
        grad_reset = grad_new * recurrent * (reset * (ONE - reset))
        grad_z = np.concatenate([grad_reset, grad_update, grad_new], axis=1)
        grad_u = np.concatenate([grad_reset, grad_update, grad_new * reset], axis=1)
        before = self.map_backward(grad_u, parameters["weight_hh"])
        before += grad_h * update
        return grad_z, (before,), (grad_u,)


def sigmoid_inplace(x: Array) -> None:
    """x = 1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):  # exp gives inf for x < -88, and the result is the 0 it should be
        np.multiply(x, -ONE, out=x)  # np.negative of numpy 2.4 is wrong here where x is a column of an array
        np.exp(x, out=x)
        x += ONE
        np.reciprocal(x, out=x)
