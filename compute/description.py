"""Models as data (proto/model.proto): public class names and constructor arguments, no code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from compute import nn
from compute.described import Described
from compute.errors import InputError
from compute.nn import init
from compute.nn.module import Module, Wire
from compute.nn.wiring import Graph
from compute.spec import TensorSpec
from proto import model_pb2 as pb

_DEFAULTS: dict[str, Any] = {
    "frozen": False,
    "weight_regularizer": None,
    "bias_regularizer": None,
    "weight_rate_scale": 1.0,
    "bias_rate_scale": 1.0,
}
"""What a module may be told after its construction."""


def _public() -> dict[str, type]:
    """Classes that may be named in a description."""
    found: dict[str, type] = {"nn.Wire": Wire, "nn.Regularizer": nn.Regularizer, "TensorSpec": TensorSpec}
    for prefix, package in (("nn", nn), ("nn.init", init)):
        for name, value in vars(package).items():
            if isinstance(value, type) and issubclass(value, Described) and not name.startswith("_"):
                found[f"{prefix}.{name}"] = value
    return found


def describe(model: Module) -> pb.ModelDescription:
    """The model as data.

    Raises:
        InputError: it holds something that only code can make, such as a function.
    """
    return _Writer(model).description


def restore(description: pb.ModelDescription, custom: Iterable[type[Module]] = ()) -> Module:
    """The model that a description is of.

    Args:
        custom: classes of the user's own layers in it.

    Raises:
        InputError: it names a class that is not known, or does not fit this version.
    """
    return _Reader(description, {f"custom.{cls.__name__}": cls for cls in custom}).model()


class _Writer:
    def __init__(self, model: Module) -> None:
        self.description = pb.ModelDescription()
        self._names = {cls: name for name, cls in _public().items()}
        self._places: dict[int, int] = {}
        self._told: set[int] = set()
        self._path = model.name or model.kind
        self._place(model)

    def _place(self, item: Described | TensorSpec) -> int:
        if id(item) in self._places:
            return self._places[id(item)]
        if isinstance(item, Module):
            self._path = item.name or item.kind
        if isinstance(item, Graph):  # from the inputs on, lest a deep graph becomes a deep recursion
            for wire in item.wires:
                self._place(wire)
        if isinstance(item, TensorSpec):
            arguments: tuple[Any, ...] = (item.shape, item.dtype)
            keywords: dict[str, Any] = {}
        else:
            arguments, keywords = item.constructor_arguments()
        entry = pb.Object(kind=self._names.get(type(item)) or f"custom.{type(item).__name__}")
        entry.arguments.extend(self._value(value) for value in arguments)
        for name, value in keywords.items():
            entry.keywords[name].CopyFrom(self._value(value))
        if isinstance(item, Module):
            self._attributes(item, entry)
        self.description.objects.append(entry)
        self._places[id(item)] = len(self.description.objects) - 1
        return self._places[id(item)]

    def _attributes(self, module: Module, entry: pb.Object) -> None:
        """What the module was told after its construction, and those in it that it made itself (by their number)."""
        for index, inner in enumerate(module.modules()):
            if id(inner) in self._told:
                continue
            self._told.add(id(inner))
            for name, default in _DEFAULTS.items():
                value = getattr(inner, name)
                if value != default:
                    entry.attributes[f"{index}.{name}" if index else name].CopyFrom(self._value(value))

    def _value(self, value: Any) -> pb.Value:
        if value is None:
            return pb.Value(none=True)
        if isinstance(value, bool | np.bool_):
            return pb.Value(boolean=bool(value))
        if isinstance(value, int | np.integer):
            return pb.Value(integer=int(value))
        if isinstance(value, float | np.floating):
            return pb.Value(number=float(value))
        if isinstance(value, str):
            return pb.Value(text=value)
        if isinstance(value, list):
            return pb.Value(list=pb.List(items=[self._value(item) for item in value]))
        if isinstance(value, tuple):
            return pb.Value(tuple=pb.List(items=[self._value(item) for item in value]))
        if isinstance(value, Described | TensorSpec):
            return pb.Value(object=self._place(value))
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            plain = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
            return pb.Value(array=pb.Array(shape=plain.shape, dtype=plain.dtype.str, data=plain.tobytes()))
        raise InputError(
            f"{self._path} holds {value!r}, which cannot be saved as data; make it a class derived from nn.CustomLayer "
            "whose arguments are numbers, texts or layers"
        )


class _Reader:
    def __init__(self, description: pb.ModelDescription, custom: Mapping[str, type]) -> None:
        self._description = description
        self._classes: dict[str, type] = {**_public(), **custom}
        self._made: list[Any] = []

    def model(self) -> Module:
        for entry in self._description.objects:
            self._made.append(self._make(entry))
        if not self._made or not isinstance(self._made[-1], Module):
            raise InputError("the file describes no model; it was written by another version of mesograd")
        return self._made[-1]

    def _make(self, entry: pb.Object) -> Any:
        cls = self._classes.get(entry.kind)
        if cls is None:
            name = entry.kind.removeprefix("custom.")
            raise InputError(f"the model holds a {name}, which mesograd does not have; pass custom=[{name}]")
        arguments = [self._value(value) for value in entry.arguments]
        keywords = {name: self._value(value) for name, value in entry.keywords.items()}
        try:
            made = cls(*arguments, **keywords)
        except TypeError as error:
            raise InputError(f"cannot make the model's {entry.kind} ({error}): saved by another version?") from None
        modules = list(made.modules()) if entry.attributes else []
        for name, value in entry.attributes.items():
            index, _, attribute = name.rpartition(".")
            if attribute in _DEFAULTS and (index or "0").isdecimal() and int(index or 0) < len(modules):
                setattr(modules[int(index or 0)], attribute, self._value(value))
        return made

    def _value(self, value: pb.Value) -> Any:
        match value.WhichOneof("value"):
            case "none":
                return None
            case "list":
                return [self._value(item) for item in value.list.items]
            case "tuple":
                return tuple(self._value(item) for item in value.tuple.items)
            case "object":
                if value.object >= len(self._made):
                    raise InputError("the file's description of the model is damaged; fetch the file again")
                return self._made[value.object]
            case "array":
                array = np.frombuffer(value.array.data, dtype=np.dtype(value.array.dtype))
                return array.reshape(tuple(value.array.shape)).copy()
            case None:
                raise InputError("the file's description of the model is damaged; fetch the file again")
            case kind:
                return getattr(value, kind)
