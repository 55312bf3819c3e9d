"""Ready-made networks."""

from compute.models.lenet import lenet5

__all__ = ["lenet5"]
