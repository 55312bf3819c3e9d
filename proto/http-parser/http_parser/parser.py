"""Where http-parser kept its compiled class."""

from .http import HttpParser

__all__ = ["HttpParser"]
