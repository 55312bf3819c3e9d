"""Mesograd against PyTorch DistributedDataParallel on LeNet-5: `python -m benchmarks.first_light --help`."""
