"""Transforms of samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from compute.data.items import Flow, Spec
from compute.data.source import Key, Tensors
from compute.errors import InputError
from compute.philox import Stream
from compute.spec import Shape, SpecsLike, TensorSpec, as_arrays, as_specs


class Transform:
    """Base of all transforms; subclass it for one of your own and override `apply`.

        class AddNoise(data.Transform):
            def apply(self, x, target, stream):
                return x + 0.1 * stream.uniform(x.shape), target

    One that changes the shape of samples of one tensor also overrides `output_shape`; one that changes types, targets
    or the number of tensors overrides `output_specs`.
    """

    varying_length = False
    """Whether the first dimension of a sample may become shorter than its spec says, the same in a micro-batch."""

    def output_shape(self, sample_shape: Shape) -> Shape:
        """Shape of one sample after the transform; unchanged by default."""
        return sample_shape

    def output_specs(self, inputs: Flow, targets: Flow) -> tuple[Flow, Flow]:
        """Specs of inputs and targets after the transform; by default only `output_shape` of a single input changes."""
        if len(inputs) == 1 and isinstance(inputs[0], TensorSpec):
            inputs = (TensorSpec(tuple(self.output_shape(inputs[0].shape)), inputs[0].dtype),)
        return inputs, targets

    def output_classes(self, classes: int | None) -> int | None:
        """Number of classes that labels may name after the transform; unchanged by default."""
        return classes

    def apply(self, x: Any, target: Any, stream: Stream) -> tuple[Any, Any]:
        """Transforms a micro-batch: x (n, *shape) and target, or tuples where there are several tensors.

        x may be overwritten. Results must depend on nothing but the arguments; `stream` gives this micro-batch's random
        numbers. Several threads may call it at once.
        """
        raise NotImplementedError(f"{type(self).__name__} must define apply")

    def __call__(self, x: Tensors, target: Tensors, key: Key, place: str) -> tuple[Tensors, Tensors]:
        """Applies the transform at `place` of a pipeline to the micro-batch named by `key`."""
        result: tuple[Tensors, Tensors] = self.apply(x, target, Stream(f"transform {place}", *key))
        return result


class InputTransform(Transform):
    """Base of transforms of the inputs alone, for samples of one tensor; override `output_spec` and `change`."""

    random = False
    """Whether `change` draws random numbers; if not, its stream is None and the cost of making one is saved."""

    def output_spec(self, spec: Spec) -> Spec:
        """Spec of the input after the transform. Raises InputError if the transform does not take it."""
        return spec

    def change(self, x: Any, stream: Any) -> Any:
        """Transforms the inputs of a micro-batch, (n, *shape)."""
        raise NotImplementedError(f"{type(self).__name__} must define change")

    def output_specs(self, inputs: Flow, targets: Flow) -> tuple[Flow, Flow]:
        if len(inputs) != 1:
            name = type(self).__name__
            raise InputError(
                f"{name} takes one input tensor, the samples have {len(inputs)}; "
                f"name the one with data.on_input({name}(...), index)"
            )
        return (self.output_spec(inputs[0]),), targets

    def __call__(self, x: Tensors, target: Tensors, key: Key, place: str) -> tuple[Tensors, Tensors]:
        return self.change(x, Stream(f"transform {place}", *key) if self.random else None), target


class _On(Transform):
    """Applies an InputTransform to one of several tensors."""

    def __init__(self, transform: InputTransform, index: int) -> None:
        if not isinstance(transform, InputTransform):
            raise InputError(f"{type(self).__name__} takes a transform such as data.to_float(), got {transform!r}")
        self.transform, self.index = transform, index

    def _specs(self, flow: Flow, what: str) -> Flow:
        if not 0 <= self.index < len(flow):
            raise InputError(f"{type(self).__name__}: there is no {what} {self.index}, the samples have {len(flow)}")
        changed = self.transform.output_spec(flow[self.index])
        return (*flow[: self.index], changed, *flow[self.index + 1 :])

    def _change(self, tensors: Tensors, key: Key, place: str) -> Tensors:
        arrays = as_arrays(tensors)
        changed, _ = self.transform(arrays[self.index], (), key, place)
        result = (*arrays[: self.index], *as_arrays(changed), *arrays[self.index + 1 :])
        return result[0] if len(result) == 1 else result


class on_input(_On):
    """Applies a transform to input `index` of samples of several tensors."""

    def __init__(self, transform: InputTransform, index: int) -> None:
        super().__init__(transform, index)

    def output_specs(self, inputs: Flow, targets: Flow) -> tuple[Flow, Flow]:
        return self._specs(inputs, "input"), targets

    def __call__(self, x: Tensors, target: Tensors, key: Key, place: str) -> tuple[Tensors, Tensors]:
        return self._change(x, key, place), target


class on_target(_On):
    """Applies a transform to target `index`."""

    def __init__(self, transform: InputTransform, index: int = 0) -> None:
        super().__init__(transform, index)

    def output_specs(self, inputs: Flow, targets: Flow) -> tuple[Flow, Flow]:
        return inputs, self._specs(targets, "target")

    def __call__(self, x: Tensors, target: Tensors, key: Key, place: str) -> tuple[Tensors, Tensors]:
        return x, self._change(target, key, place)


class map(Transform):
    """function(x) in place of the inputs x of a micro-batch: (n, *shape), or a tuple where there are several tensors.

    Args:
        function: must depend on x alone; give `apply` of a Transform of your own for random numbers and targets.
        specs: shape or specs of the result, where it differs: `data.map(lambda x: x[:, :1], (1, 28, 28))`.
    """

    def __init__(self, function: Callable[[Any], Any], specs: SpecsLike | None = None) -> None:
        if not callable(function):
            raise InputError(f"{type(self).__name__} takes a function, got {function!r}")
        self.function = function
        self.specs = None if specs is None else as_specs(specs)

    def output_specs(self, inputs: Flow, targets: Flow) -> tuple[Flow, Flow]:
        return (inputs if self.specs is None else self.specs), targets

    def __call__(self, x: Tensors, target: Tensors, key: Key, place: str) -> tuple[Tensors, Tensors]:
        return self.function(x), target


class map_target(map):
    """function(target) in place of the targets of a micro-batch; else as `map`.

    Args:
        classes: the number of classes that the new targets name, None if they are no labels.
    """

    def __init__(
        self, function: Callable[[Any], Any], specs: SpecsLike | None = None, classes: int | None = None
    ) -> None:
        super().__init__(function, specs)
        self.classes = classes

    def output_specs(self, inputs: Flow, targets: Flow) -> tuple[Flow, Flow]:
        return inputs, (targets if self.specs is None else self.specs)

    def output_classes(self, classes: int | None) -> int | None:
        return self.classes

    def __call__(self, x: Tensors, target: Tensors, key: Key, place: str) -> tuple[Tensors, Tensors]:
        return x, self.function(target)


class input_as_target(Transform):
    """The inputs are the targets, too, for autoencoders."""

    def output_specs(self, inputs: Flow, targets: Flow) -> tuple[Flow, Flow]:
        return inputs, inputs

    def output_classes(self, classes: int | None) -> int | None:
        return None

    def __call__(self, x: Tensors, target: Tensors, key: Key, place: str) -> tuple[Tensors, Tensors]:
        # A copy: later transforms may overwrite x.
        copies = tuple(np.copy(array) for array in as_arrays(x))
        return x, copies[0] if len(copies) == 1 else copies
