"""Dataclasses as JSON, for state that outlives a driver. Bytes become base64; the types decide how it is read back."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]
T = typing.TypeVar("T")


def encode(value: Any) -> Any:
    """What `json.dumps` takes. Raises TypeError for what `decode` could not read back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, enum.Enum):
        return encode(value.value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {_key(key): encode(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [encode(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def decode(kind: type[T], value: Any) -> T:
    """A value of the type `kind`, as it is annotated in a dataclass.

    Fields that are missing take their defaults, unknown ones are left aside: a driver of another version may have
    written them. Raises ValueError if it cannot be read.
    """
    try:
        decoded: T = _decode(kind, value)
        return decoded
    except (TypeError, KeyError, AttributeError, binascii.Error) as error:
        raise ValueError(f"not a {getattr(kind, '__name__', kind)}: {error}") from error


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} has no form in JSON")
    return key


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _decode(kind: Any, value: Any) -> Any:
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (argument for argument in arguments if argument is not types.NoneType)
        return _decode(kind, value)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_decode(arguments[0], item) for item in value)
    if origin is tuple:
        return tuple(_decode(argument, item) for argument, item in zip(arguments, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return {key: _decode(arguments[1], item) for key, item in value.items()}
    if origin is not None and issubclass(origin, Sequence):
        return [_decode(arguments[0], item) for item in value]
    if dataclasses.is_dataclass(kind):
        known = _fields(typing.cast(type, kind))
        return typing.cast(type, kind)(
            **{name: _decode(known[name], item) for name, item in value.items() if name in known}
        )
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if kind is bytes:
        return base64.b64decode(value, validate=True)
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return value
