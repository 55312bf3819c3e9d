"""One layer and direction of an LSTM, made of products and element-wise functions.

For cells that oneDNN has no primitive for, and for those whose backward pass it has no kernel for but its reference: in
bfloat16 (in float32 the reference was no slower than this on the whole). All products that need not wait
for the step before are one product over all steps: those of the inputs, of their gradients and of both weights'
gradients. Only those with the state are made step by step, with weights in the kernel's own layout, and add to what is
there already. The formulas are those of nn.LSTMCell.

Products want the gates of a sample one behind the other, (n, i f g o), everything else wants each gate by itself,
(i f o g, n): functions of whole arrays are faster than those of their columns, for a step in all by 15 to 30 %, the
copies included.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from compute import nn
from compute.engines import dnnl
from compute.engines.blocked.layout import Layout
from compute.engines.blocked.linear_map import LinearMap
from compute.engines.blocked.plan import BlockedPlan
from compute.engines.dnnl import SumPostOp
from compute.engines.dnnl.constants import BF16, DIFF_DST, DIFF_SRC, DST, F32, SRC, WEIGHTS, Eltwise
from compute.engines.staged import numpy_call
from compute.engines.tensor import Tensor
from compute.nn.layer import Array, Arrayed

GATES = 4
PEEPHOLES = ("weight_ci", "weight_cf", "weight_co")

LEAST_HIDDEN = 256
"""In bfloat16. With 200 units oneDNN's primitive was faster, as each step's calls are small; with 400 it was slower."""


def by_products(plan: BlockedPlan, layer: nn.LSTM) -> bool:
    """Whether a layer is computed as here and not by oneDNN's primitive. Measured on AVX-512; see docs/kernels.md."""
    return layer.peephole or (plan.training and plan.dtype == BF16 and layer.hidden_size >= LEAST_HIDDEN)


class LstmRun:
    """From x (times, n, inputs) to y (times, n, hidden), both dense, beginning with states of zeros.

    Args:
        parameters, gradients: of this layer and direction, by the cell's names.

    Attributes:
        y: the outputs.
    """

    def __init__(
        self,
        plan: BlockedPlan,
        hidden: int,
        x: Tensor,
        reverse: bool,
        parameters: Arrayed,
        gradients: Arrayed,
    ) -> None:
        self.plan, self._parameters, self._gradients = plan, parameters, gradients
        self._times, self._n, inputs = plan.describe(x).dims
        times, n, self._hidden = self._times, self._n, hidden
        self._order = range(times - 1, -1, -1) if reverse else range(times)
        self._peephole = "weight_ci" in parameters
        rows = times * n
        self._x = plan.reshaped(x, (rows, inputs))
        self._inputs = LinearMap(plan, parameters["weight_ih"], rows, bias="bias_ih" in parameters)
        # What goes into the gates, (n, i f g o) at each step; in the backward pass its gradient.
        self._before = plan.rows((times, n, GATES * hidden))
        self._gates = plan.rows((times, GATES, n, hidden)).array
        self._cells, self._squashed = plan.rows((times, n, hidden)).array, plan.rows((times, n, hidden)).array
        self._work = plan.rows((n, hidden)).array
        described = {count: plan.api.strided((count * n, hidden)) for count in (1, 2, 3)}
        self._sigmoid = {
            count: dnnl.eltwise(plan.api, Eltwise.LOGISTIC_FROM_DST, d, d) for count, d in described.items()
        }
        self._tanh = dnnl.eltwise(plan.api, Eltwise.TANH_FROM_DST, described[1], described[1])
        self.y = plan.tensor(plan.plain((times, n, hidden)))
        bias = self._bias()
        self._inputs.forward(self._x, Tensor(self._before.array.reshape(rows, -1)), bias)
        self._forward_steps()

    def _bias(self) -> Array | None:
        """The sum of both biases; emits it."""
        if "bias_ih" not in self._parameters:
            return None
        found = self.plan.rows((GATES * self._hidden,)).array
        first, second = self._parameters["bias_ih"], self._parameters["bias_hh"]
        self._emit(np.add, first, second, found)
        return found

    def _forward_steps(self) -> None:
        plan, n, hidden = self.plan, self._n, self._hidden
        weight = self._parameters["weight_hh"]
        source, target = plan.plain((n, hidden)), plan.api.strided((n, GATES * hidden))
        add = plan.api.attribute_of(SumPostOp())
        operation = dnnl.inner_product(plan.api, source, plan.any(weight.shape), None, target, plan.training, add)
        packed = plan.weight(weight, weight.shape, operation.layout(WEIGHTS))
        for before, t in zip((None, *self._order), self._order, strict=False):
            if before is not None:
                state = self._at(self.y, before)
                plan.run(operation, {SRC: state, WEIGHTS: packed, DST: Tensor(self._before.array[t])})
            self._gates_of(t, before)
            i, f, o, g = self._gates[t]
            cell, squashed, h = self._cells[t], self._squashed[t], self._at(self.y, t)
            if before is None:
                self._emit(np.multiply, i, g, cell)
            else:
                self._emit(_cell, i, g, f, self._cells[before], squashed, cell)
            if self._peephole:
                self._emit(_add_product, cell, self._parameters["weight_co"], self._work, o)
                self._apply(self._sigmoid[1], o)
            plan.run(self._tanh, {SRC: Tensor(cell), DST: Tensor(squashed)})
            # Where y is not float32, the copy of a scratch array rounds it.
            out = h.array if plan.dtype == F32 else self._work
            self._emit(np.multiply, o, squashed, out)
            if plan.dtype != F32:
                plan.reorder(Tensor(out), h)

    def _gates_of(self, t: int, before: int | None) -> None:
        """Emits the gates of a step; with peepholes o must wait for the cells behind the step."""
        gates = self._gates[t]
        self._emit(_separate, self._before.array[t], gates)
        if self._peephole and before is not None:
            for index, name in enumerate(PEEPHOLES[:2]):
                self._emit(_add_product, self._cells[before], self._parameters[name], self._work, gates[index])
        count = 2 if self._peephole else 3
        self._apply(self._sigmoid[count], gates[:count])
        self._apply(self._tanh, gates[3])

    def _emit(self, function: Callable[..., object], *arrays: Array) -> None:
        """Emits a function of arrays that writes into the last ones."""
        self.plan.emit(numpy_call(function, *arrays), uses=arrays)

    def _apply(self, operation: dnnl.Operation, array: Array) -> None:
        """Emits an element-wise function in place."""
        self.plan.run(operation, {SRC: Tensor(array), DST: Tensor(array)})

    def _at(self, tensor: Tensor, t: int) -> Tensor:
        """A step (n, size) of a dense tensor (times, n, size)."""
        array, described = tensor.array, self.plan.describe(tensor)
        _, n, size = described.dims
        layout = self.plan.layout_of(self.plan.api.strided((n, size), dtype=described.dtype))
        if isinstance(layout, Layout):
            step = n * size * described.dtype.size_bytes
            return Tensor(array.reshape(-1).view(np.uint8)[t * step : (t + 1) * step], layout)
        return Tensor(array[t])

    def _span(self, tensor: Tensor, first: int, count: int) -> Tensor:
        """Steps first .. first + count - 1 of a dense tensor (times, n, size) as rows (count * n, size)."""
        described = self.plan.describe(tensor)
        _, n, size = described.dims
        step = n * size * described.dtype.size_bytes
        raw = tensor.array.reshape(-1).view(np.uint8)[first * step : (first + count) * step]
        layout = self.plan.layout_of(self.plan.api.strided((count * n, size), dtype=described.dtype))
        if isinstance(layout, Layout):
            return Tensor(raw, layout)
        return Tensor(raw.view(np.float32).reshape(count * n, size))

    # --- backward -----------------------------------------------------------------------------------------------------

    def backward(self, grad_y: Tensor) -> Tensor:
        """Emits the gradients of the parameters and that of x, float32, given that of y, float32 and dense.

        The latter is overwritten.
        """
        plan, n, hidden, times = self.plan, self._n, self._hidden, self._times
        weight, order = self._parameters["weight_hh"], self._order
        rounded = self._before if plan.dtype == F32 else plan.tensor(plan.plain((times, n, GATES * hidden)))
        source, target = plan.plain((n, GATES * hidden)), plan.api.strided((n, hidden))
        add = plan.api.attribute_of(SumPostOp())
        operation = dnnl.matmul(plan.api, source, plan.any(weight.shape), None, target, add)
        packed = plan.weight(weight, weight.shape, operation.layout(WEIGHTS))
        grads, carried = plan.rows((GATES, n, hidden)).array, plan.rows((n, hidden)).array
        plan.emit(partial(carried.fill, 0.0), uses=(carried,))
        for before, t in reversed(list(zip((None, *order), order, strict=False))):
            self._backward_step(t, before, grad_y.array[t], carried, grads)
            self._emit(_join, grads, self._before.array[t])
            step = self._at(rounded, t)
            if plan.dtype != F32:
                plan.reorder(Tensor(self._before.array[t]), step)
            if before is not None:
                plan.run(operation, {SRC: step, WEIGHTS: packed, DST: Tensor(grad_y.array[before])})
        return self._products(rounded)

    def _backward_step(self, t: int, before: int | None, grad_h: Array, carried: Array, grads: Array) -> None:
        """Emits what gives the gradients of a step's gates, (4, n, hidden), before their functions.

        `carried`, the gradient of the cells behind the step, becomes that of the cells before it.
        """
        work, (i, f, o, g), squashed = self._work, self._gates[t], self._squashed[t]
        grad_i, grad_f, grad_o, grad_g = grads
        self._emit(np.multiply, grad_h, squashed, grad_o)
        self._emit(np.multiply, grad_h, o, work)
        self._through(self._tanh, squashed, work)
        self._emit(np.add, carried, work, carried)
        count = 3
        if self._peephole:
            self._through(self._sigmoid[1], o, grad_o)
            self._emit(_add_product, grad_o, self._parameters["weight_co"], work, carried)
            count = 2
        self._emit(np.multiply, carried, g, grad_i)
        self._emit(np.multiply, carried, i, grad_g)
        if before is None:
            self.plan.emit(partial(grad_f.fill, 0.0), uses=(grad_f,))
        else:
            self._emit(np.multiply, carried, self._cells[before], grad_f)
        self._emit(np.multiply, carried, f, carried)
        self._through(self._sigmoid[count], self._gates[t, :count], grads[:count])
        self._through(self._tanh, g, grad_g)
        if self._peephole:
            for name, part in zip(PEEPHOLES, (grad_i, grad_f), strict=False):
                self._emit(_add_product, part, self._parameters[name], work, carried)

    def _through(self, forward: dnnl.Operation, result: Array, grad: Array) -> None:
        """Emits grad *= f', given f's result."""
        data = forward.layout(DST)
        operation = dnnl.eltwise_backward(forward, data, data, data)
        self.plan.run(operation, {DST: Tensor(result), DIFF_DST: Tensor(grad), DIFF_SRC: Tensor(grad)})

    def _products(self, grad_gates: Tensor) -> Tensor:
        """Emits all gradients that are sums over the steps; gives that of x."""
        plan, times, n = self.plan, self._times, self._n
        gradients = self._gradients
        every = self._span(grad_gates, 0, times)
        self._inputs.backward_weight(self._x, every, gradients["weight_ih"], gradients.get("bias_ih"))
        if "bias_ih" in gradients:
            plan.emit(partial(np.copyto, gradients["bias_hh"], gradients["bias_ih"]))
        if times > 1:
            # The states meet the gates of the step behind them, which are one block of rows each.
            reverse = self._order[0] != 0
            states = self._span(self.y, int(reverse), times - 1)
            behind = self._span(grad_gates, int(not reverse), times - 1)
            recurrent = LinearMap(plan, self._parameters["weight_hh"], (times - 1) * n)
            recurrent.backward_weight(states, behind, gradients["weight_hh"])
        else:
            plan.emit(partial(gradients["weight_hh"].fill, 0.0))
        if self._peephole:
            plan.emit(self._peephole_gradients, uses=(self._before.array, self._cells))
        grad_x = plan.rows((times, n, self._parameters["weight_ih"].shape[1]))
        self._inputs.backward_data(every, Tensor(grad_x.array.reshape(times * n, -1)))
        return grad_x

    def _peephole_gradients(self) -> None:
        """Sums over all steps; before the first one the cells are zeros."""
        hidden, order, gradients = self._hidden, self._order, self._gradients
        grads, cells = self._before.array, self._cells
        late, early = (slice(1, None), slice(None, -1)) if order[0] == 0 else (slice(None, -1), slice(1, None))
        for index, name in enumerate(("weight_ci", "weight_cf")):
            part = grads[late, :, index * hidden : (index + 1) * hidden]
            np.einsum("tnh,tnh->h", part, cells[early], out=gradients[name])
        np.einsum("tnh,tnh->h", grads[:, :, 3 * hidden :], cells, out=gradients["weight_co"])


def _separate(joined: Array, gates: Array) -> None:
    """(i f o g, n, hidden) from (n, i f g o)."""
    parts = _parts(joined)
    np.copyto(gates[:2], parts[:2])
    np.copyto(gates[2], parts[3])
    np.copyto(gates[3], parts[2])


def _join(gates: Array, joined: Array) -> None:
    """(n, i f g o) from (i f o g, n, hidden)."""
    parts = _parts(joined)
    np.copyto(parts[:2], gates[:2])
    np.copyto(parts[3], gates[2])
    np.copyto(parts[2], gates[3])


def _parts(joined: Array) -> Array:
    """(n, 4 * hidden) seen as (4, n, hidden)."""
    return joined.reshape(len(joined), GATES, -1).transpose(1, 0, 2)


def _cell(i: Array, g: Array, f: Array, before: Array, work: Array, cell: Array) -> None:
    """cell = i * g + f * before."""
    np.multiply(i, g, out=cell)
    np.multiply(f, before, out=work)
    np.add(cell, work, out=cell)


def _add_product(x: Array, weight: Array, work: Array, total: Array) -> None:
    """total += x * weight."""
    np.multiply(x, weight, out=work)
    np.add(total, work, out=total)
