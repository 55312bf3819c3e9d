"""Errors of the binding."""


class DnnlError(RuntimeError):
    """A call of oneDNN failed."""


class Unimplemented(DnnlError):
    """The library has no implementation of an operation for these shapes, types and layouts."""
