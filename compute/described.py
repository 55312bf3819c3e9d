"""Objects that remember how they were made, so that a model can be saved as data instead of code."""

from __future__ import annotations

from typing import Any, Self


class Described:
    """Base of all that a model is made of; keeps the constructor's arguments."""

    _arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self._arguments = (args, kwargs)
        return self

    def constructor_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments that make an equal object."""
        return self._arguments
