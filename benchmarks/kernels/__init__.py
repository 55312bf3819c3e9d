"""Which library function is fastest for which operation: the measurements behind docs/kernels.md."""
