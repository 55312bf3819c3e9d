"""The network library: layers, engines, optimizers, data."""
