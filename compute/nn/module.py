"""Base of all layers and containers.

A module only describes: what it makes of its inputs' shapes and which parameters it has. It holds no weights and no
buffers; those belong to the compiled program. So a model is cheap to pickle, and one model serves many programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from compute.described import Described
from compute.errors import InputError
from compute.nn.init import Initializer
from compute.nn.regularizer import Regularizer
from compute.spec import Shape, Specs, TensorSpec

Activity = int | tuple["Activity", ...]
"""What flows between modules while a graph is built: a value's number, or a table of such."""


@dataclass(frozen=True)
class Parameter:
    """A parameter that a layer wants: its name within the layer, its shape and how it starts.

    Attributes:
        kind: "weight" is trained by the optimizer. "statistic" is a running mean of what the layer measures in
            training, such as batch normalization's mean and variance: the layer's forward pass writes `context.share`
            times the micro-batch's value to `context.statistics`, in place of a gradient; the sum over the step's
            micro-batches is then the mean over its samples, and running = (1 - momentum) * running + momentum * mean.
        momentum: of a statistic.
    """

    name: str
    shape: Shape
    initializer: Initializer
    kind: Literal["weight", "statistic"] = "weight"
    momentum: float = 0.1


class Builder(Protocol):
    """What modules need of the graph that they add themselves to (compute.graph.GraphBuilder)."""

    def add(self, layer: Module, sources: Activity, name: str) -> Activity:
        """Adds a layer; returns its output, or a table of its outputs."""

    def spec(self, value: int) -> TensorSpec:
        """Shape and type of a value."""


class Module(Described):
    """A layer or a container of layers.

    Args:
        name: how messages, checkpoints and summaries call it. By default its class and its place in the model.
    """

    # Of the class, so that users' layers may do without super().__init__().
    name: str | None = None
    frozen: bool = False
    weight_regularizer: Regularizer | None = None
    bias_regularizer: Regularizer | None = None
    weight_rate_scale: float = 1.0
    bias_rate_scale: float = 1.0

    def __init__(self, name: str | None = None) -> None:
        if name is not None and (not name or "." in name or any(c.isspace() for c in name)):
            raise InputError(f"a layer's name must have no dots or spaces and not be empty, got {name!r}")
        self.name = name

    @property
    def kind(self) -> str:
        """The class's name, for messages and default names."""
        return type(self).__name__

    def children(self) -> Iterator[Module]:
        """The modules that this one is made of; a layer has none."""
        return iter(())

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        yield self
        for child in self.children():
            yield from child.modules()

    def freeze(self, *names: str) -> Self:
        """Excludes the parameters of this module, or of those below it with these names, from training."""
        return self._set_frozen(True, names)

    def unfreeze(self, *names: str) -> Self:
        """Undoes `freeze`."""
        return self._set_frozen(False, names)

    def _set_frozen(self, frozen: bool, names: tuple[str, ...]) -> Self:
        chosen = [m for m in self.modules() if m.name in names] if names else [self]
        missing = set(names) - {m.name for m in chosen}
        if missing:
            known = ", ".join(sorted(m.name for m in self.modules() if m.name)) or "none"
            raise InputError(f"no module is named {', '.join(sorted(missing))}; the named ones are: {known}")
        for module in chosen:
            for inner in module.modules():
                inner.frozen = frozen
        return self

    def regularize(self, weight: Regularizer | None = None, bias: Regularizer | None = None) -> Self:
        """Adds the gradient of a penalty on the weights or biases of this module and of those below it."""
        for module in self.modules():
            module.weight_regularizer, module.bias_regularizer = weight, bias
        return self

    def scale_rate(self, weight: float = 1.0, bias: float | None = None) -> Self:
        """Multiplies the learning rate of this module and of those below it; biases' like weights' by default."""
        for module in self.modules():
            module.weight_rate_scale = float(weight)
            module.bias_rate_scale = float(weight if bias is None else bias)
        return self

    def output_specs(self, *inputs: TensorSpec) -> Specs:
        """Shapes and types of the outputs for one sample.

        By default the layer takes float32 and gives one float32 tensor of `output_shape`.

        Raises:
            InputError: the layer cannot take these; the text says what it needs.
        """
        if any(spec.dtype != "float32" for spec in inputs):
            raise InputError("takes float32; whole numbers such as token ids go through nn.Embedding first")
        shape = self.output_shape(*(spec.shape for spec in inputs))
        if not isinstance(shape, tuple | list):
            raise InputError(f"its `output_shape` must give a tuple, gave {shape!r}")
        return (TensorSpec(tuple(shape)),)

    def output_shape(self, *args: Any, **kwargs: Any) -> Shape:
        """output_shape(input_shape, ...): shape of one output sample, given that of each input.

        Raises:
            InputError: the layer cannot take these; the text says what it needs.
        """
        raise NotImplementedError(f"{self.kind} must define output_shape")

    def parameters(self, *args: Any, **kwargs: Any) -> list[Parameter]:
        """parameters(input_shape, ...): the layer's parameters for inputs of these shapes; none by default."""
        return []

    def build(self, builder: Builder, sources: Activity, path: str) -> Activity:
        """Adds the module to a graph behind `sources`; returns its outputs. `path` is its name in the graph."""
        return builder.add(self, sources, path)

    def __call__(self, *inputs: Wire) -> Wire:
        """Wires the module behind others in an nn.Graph: `y = nn.ReLU()(x)`.

        Raises:
            InputError: there are no inputs, or they are no wires.
        """
        if not inputs or not all(isinstance(item, Wire) for item in inputs):
            raise InputError(f"{self.kind} is called on the outputs of other modules or nn.Input(), not on arrays")
        return Wire(self, tuple(inputs))


class Wire(Described):
    """The output of a module in a wired graph; made by nn.Input and by calling modules on other wires."""

    def __init__(self, module: Module | None, sources: tuple[Wire, ...]) -> None:
        self.module = module
        self.sources = sources

    def __repr__(self) -> str:
        return f"the output of {self.module.name or self.module.kind}" if self.module else "an nn.Input"


def positive(kind: str, **values: int) -> None:
    """Raises InputError unless every value is a whole number of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{kind}: {name} must be a whole number of at least 1, got {value!r}")


def sizes(kind: str, name: str, value: int | tuple[int, ...], count: int, least: int) -> tuple[int, ...]:
    """`count` numbers from one for all or from as many; each a whole number of at least `least`, else InputError."""
    several = tuple(value) if isinstance(value, tuple | list) else (value,) * count
    if len(several) != count or not all(
        isinstance(v, int) and not isinstance(v, bool) and v >= least for v in several
    ):
        raise InputError(f"{kind}: {name} must be one or {count} whole numbers of at least {least}, got {value!r}")
    return several
