"""What a recurrent network does at one step of a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from compute.errors import InputError
from compute.nn.layer import Array, Arrayed, Layer, LayerContext
from compute.nn.module import Parameter
from compute.spec import Arrays, Shape, Specs, TensorSpec

States = tuple[Array, ...]
"""The states of some rows, each (rows, *shape)."""


class Cell(Layer):
    """Base of recurrent cells: from an input and states to new states, one of which is the output.

    As a layer of its own it takes x, or a table of x and the states (zeros where they are not given), and gives the new
    states. nn.Recurrent and its kin run it over sequences. All that does not depend on the states is computed for
    all steps at once: what the step needs of x, by `project`, and the gradients of the parameters, by `accumulate`.

    Override the methods below for a cell of your own. Rows are samples, or samples of several steps.

    Attributes:
        states: how many states it has.
        output_state: number of the state that is the output.
        records: how many arrays `step_backward` gives for `accumulate`, besides the gradients.
    """

    states = 1
    output_state = 0
    records = 0

    def state_shapes(self, input_shape: Shape) -> tuple[Shape, ...]:
        """Shapes of the states for inputs of this shape; InputError if it cannot take them."""
        raise NotImplementedError(f"{self.kind} must define state_shapes")

    def parameters(self, input_shape: Shape, *others: Shape) -> list[Parameter]:
        return []

    def project(self, x: Array, parameters: Arrayed) -> Array:
        """What the steps need of x (rows, *input_shape); x itself by default."""
        return x

    def project_backward(self, grad_z: Array, parameters: Arrayed) -> Array:
        """The gradient for x, given that for what `project` gave."""
        return grad_z

    def step(self, z: Array, states: States, parameters: Arrayed) -> tuple[States, Any]:
        """The new states, given the projected input, and whatever `step_backward` needs. Must not write into states."""
        raise NotImplementedError(f"{self.kind} must define step")

    def step_backward(
        self, grads: States, states: States, saved: Any, parameters: Arrayed
    ) -> tuple[Array, States, tuple[Array, ...]]:
        """Gradients for z and for the states, given those for the new ones; linear in `grads`.

        Returns:
            Both, and what else `accumulate` needs, arrays with rows in front.
        """
        raise NotImplementedError(f"{self.kind} must define step_backward")

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
        """Adds the gradients of the parameters over rows of any number of steps to `gradients`; none by default.

        Args:
            before, after: the states that `step` took and gave.
            grad_z, record: what `step_backward` gave.
        """

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        shapes = self.checked_states(inputs[0], inputs[1:])
        return tuple(TensorSpec(shape) for shape in shapes)

    def checked_states(self, x: TensorSpec, states: Specs) -> tuple[Shape, ...]:
        """Shapes of the states for inputs `x`; InputError if `states`, which may be none, are others."""
        if x.dtype != "float32":
            raise InputError("takes float32; whole numbers such as token ids go through nn.Embedding first")
        shapes = self.state_shapes(x.shape)
        if states not in ((), tuple(TensorSpec(shape) for shape in shapes)):
            wanted = " and ".join(str(TensorSpec(shape)) for shape in shapes)
            raise InputError(f"needs, behind x, either no initial states or {wanted}")
        return shapes

    def zero_states(self, x: Array) -> States:
        """Zeros for x (rows, *input_shape)."""
        return tuple(np.zeros((len(x), *shape), dtype=np.float32) for shape in self.state_shapes(x.shape[1:]))

    def forward_many(self, inputs: Arrays, parameters: Arrayed, context: LayerContext) -> Arrays:
        x, states = inputs[0], inputs[1:] or self.zero_states(inputs[0])
        after, saved = self.step(self.project(x, parameters), states, parameters)
        context.saved["states"], context.saved["step"] = states, saved
        return after

    def backward_many(
        self,
        inputs: Arrays,
        outputs: Arrays,
        grad_outputs: Arrays,
        parameters: Arrayed,
        gradients: Arrayed,
        context: LayerContext,
    ) -> tuple[Array | None, ...]:
        states, saved = context.saved["states"], context.saved["step"]
        grad_z, grad_states, record = self.step_backward(grad_outputs, states, saved, parameters)
        self.accumulate(inputs[0], states, outputs, grad_z, record, parameters, gradients)
        grad_x = self.project_backward(grad_z, parameters) if context.needed[0] else None
        return (grad_x, *(grad_states if len(inputs) > 1 else ()))
