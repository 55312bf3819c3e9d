"""PyTorch twins of our models: the independent oracle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

import compute
from compute import nn

Array = NDArray[np.float32]

# Its threads would only wait for each other at these sizes.
torch.set_num_threads(1)


def torch_forward_backward(
    layers: Sequence[nn.Module], parameters: dict[str, Array], x: Array, target: NDArray[np.int64], scale: float
) -> tuple[Array, float, dict[str, Array]]:
    """Output, sum of losses and gradients (by parameter name) of our layers, computed by PyTorch in float64."""
    weights = {name: torch.tensor(value.astype(np.float64), requires_grad=True) for name, value in parameters.items()}
    h = torch.tensor(x.astype(np.float64))
    functional = torch.nn.functional
    for index, layer in enumerate(layers):
        name = layer.name or f"{layer.kind.lower()}_{index}"
        weight, bias = weights.get(f"{name}.weight"), weights.get(f"{name}.bias")
        match layer:
            case nn.Conv2d():
                h = functional.conv2d(h, weight, bias, layer.stride, layer.padding)
            case nn.MaxPool2d():
                h = functional.max_pool2d(h, layer.kernel_size, layer.stride, layer.padding)
            case nn.Linear():
                h = functional.linear(h, weight, bias)
            case nn.Tanh():
                h = torch.tanh(h)
            case nn.ReLU():
                h = torch.relu(h)
            case nn.LogSoftmax():
                h = torch.log_softmax(h, 1)
            case nn.Reshape():
                h = h.reshape(len(x), *layer.shape)
            case _:
                raise NotImplementedError(layer.kind)
    loss = functional.nll_loss(h, torch.tensor(target), reduction="sum")
    (loss * scale).backward()
    gradients = {name: weight.grad.numpy() for name, weight in weights.items() if weight.grad is not None}
    return h.detach().numpy(), float(loss.detach()), gradients


def named_views(program: compute.Program, flat: Array) -> dict[str, Array]:
    """Views of the flat vector by parameter name."""
    return {
        p.name: flat[p.offset : p.offset + p.size].reshape(p.spec.shape) for p in program.graph.parameters
    }
