"""Topologies: sizes as published, whole networks against PyTorch, and that they learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import compute
from compute import InputError, models, nn
from compute.description import describe, restore
from compute.graph import Graph, Node, build_graph
from compute.spec import Shape
from tests.compute.layer_check import WeightedSum

F = torch.nn.functional
CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)

# Trained parameters: torchvision's for VGG and ResNet of ImageNet, Caffe's for GoogLeNet, those of the paper (0.27 M,
# 0.85 M) and its reproductions for CIFAR.
SIZES: list[tuple[Callable[[], nn.Module], Shape, int, int]] = [
    (models.lenet5, (1, 28, 28), 22_278, 10),
    (models.vgg_cifar10, CIFAR, 14_991_946, 10),
    (lambda: models.vgg_cifar10(100, dropout=False), CIFAR, 14_991_946 + 513 * 90, 100),
    (models.vgg16, IMAGENET, 138_357_544, 1000),
    (models.vgg19, IMAGENET, 143_667_240, 1000),
    (models.resnet20, CIFAR, 269_722, 10),
    (lambda: models.resnet20(shortcut="B"), CIFAR, 272_474, 10),
    (models.resnet56, CIFAR, 853_018, 10),
    (lambda: models.resnet_cifar(110), CIFAR, 1_727_962, 10),
    (models.resnet18, IMAGENET, 11_689_512, 1000),
    (models.resnet34, IMAGENET, 21_797_672, 1000),
    (models.resnet50, IMAGENET, 25_557_032, 1000),
    (models.inception_v1, IMAGENET, 6_998_552, 1000),
    (lambda: models.inception_v1(aux=True), IMAGENET, 13_378_280, 3000),
]


@pytest.mark.parametrize(("make", "shape", "size", "outputs"), SIZES)
def test_sizes(make: Callable[[], nn.Module], shape: Shape, size: int, outputs: int) -> None:
    graph = build_graph(make(), shape)
    assert sum(p.size for p in graph.parameters if p.trained) == size
    assert [spec.shape for spec in graph.output_specs] == [(outputs,)]


@pytest.mark.parametrize("aux", [False, True])
def test_inception_v2_has_the_widths_of_the_paper(aux: bool) -> None:
    """Weights counted from the paper's table: a 1x1 or 3x3 convolution with bias and batch normalization each."""
    columns = [
        # 1x1, 3x3 reduce, 3x3, double reduce, double, pool; input
        (64, 64, 64, 64, 96, 32, 192),
        (64, 64, 96, 64, 96, 64, 256),
        (0, 128, 160, 64, 96, 0, 320),
        (224, 64, 96, 96, 128, 128, 576),
        (192, 96, 128, 96, 128, 128, 576),
        (160, 128, 160, 128, 160, 96, 576),
        (96, 128, 192, 160, 192, 96, 576),
        (0, 128, 192, 192, 256, 0, 576),
        (352, 192, 320, 160, 224, 128, 1024),
        (352, 192, 320, 192, 224, 128, 1024),
    ]

    def conv(channels: int, width: int, kernel: int) -> int:
        return width * (channels * kernel**2 + 3)

    total = conv(3, 64, 7) + conv(64, 64, 1) + conv(64, 192, 3) + 1025 * 1000
    for one, reduce, three, double_reduce, double, pool, channels in columns:
        total += conv(channels, one, 1) + conv(channels, reduce, 1) + conv(reduce, three, 3) + conv(channels, pool, 1)
        total += conv(channels, double_reduce, 1) + conv(double_reduce, double, 3) + conv(double, double, 3)
    if aux:
        for channels, size in ((576, 4), (1024, 2)):
            total += conv(channels, 128, 1) + (128 * size**2 + 1) * 1024 + 1025 * 1000
    graph = build_graph(models.inception_v2(aux=aux), IMAGENET)
    assert sum(p.size for p in graph.parameters if p.trained) == total


def torch_twin(graph: Graph, x: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """The graph's output for x, computed by PyTorch node by node; without dropout."""
    values: dict[int, Any] = {graph.inputs[0]: x}
    for node in graph.nodes:
        own = {p.name.rsplit(".", 1)[1]: weights[p.name] for p in node.parameters}
        sources = [values[source] for source in node.sources]
        values[node.outputs[0]] = torch_node(node, sources, own)
    result: torch.Tensor = values[graph.outputs[0]]
    return result


def torch_node(node: Node, sources: list[Any], own: dict[str, torch.Tensor]) -> Any:
    layer: Any = node.layer
    x = sources[0]
    match layer.kind:
        case "Conv2d":
            return F.conv2d(x, own["weight"], own.get("bias"), layer.stride, layer.padding)
        case "BatchNorm1d" | "BatchNorm2d":
            return F.batch_norm(x, None, None, own["weight"], own["bias"], training=True, eps=layer.eps)
        case "Linear":
            return F.linear(x, own["weight"], own["bias"])
        case "ReLU":
            return F.relu(x)
        case "MaxPool2d":
            return F.max_pool2d(x, layer.kernel_size, layer.stride, layer.padding, 1, layer.ceil_mode)
        case "AvgPool2d":
            return F.avg_pool2d(x, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
        case "AdaptiveAvgPool2d":
            return F.adaptive_avg_pool2d(x, layer.output_size)
        case "LocalResponseNorm":
            return F.local_response_norm(x, layer.size, layer.alpha, layer.beta, layer.k)
        case "LogSoftmax":
            return F.log_softmax(x, -1)
        case "Flatten":
            return x.flatten(1)
        case "CAddTable":
            return sources[0] + sources[1]
        case "JoinTable":
            return torch.cat(sources, layer.dim + 1)
        case "Padding":
            return F.pad(x, (0, 0, 0, 0, 0, layer.pad))
    raise NotImplementedError(layer.kind)


SMALL: list[tuple[Callable[[], nn.Module], Shape]] = [
    (lambda: models.vgg_cifar10(dropout=False), CIFAR),
    (models.resnet20, CIFAR),
    (lambda: models.resnet20(shortcut="B"), CIFAR),
    (models.resnet18, (3, 64, 64)),
    (models.resnet50, (3, 33, 40)),
    (lambda: models.inception_v1(dropout=False), (3, 96, 96)),
    (models.inception_v2, (3, 96, 96)),
    (lambda: models.inception_v2(10, aux=True), IMAGENET),
]


@pytest.mark.parametrize("engine", ["numpy", "onednn"])
@pytest.mark.parametrize(("make", "shape"), SMALL)
def test_whole_networks_agree_with_torch(make: Callable[[], nn.Module], shape: Shape, engine: str) -> None:
    """Output and gradients of a training pass over two samples."""
    model = make()
    program = compute.compile(model, WeightedSum(), shape, engine=engine)
    program.parameters[:] = compute.initial_parameters(model, shape, 1)
    for p in program.graph.parameters:
        if not program.parameters[p.span].any():  # zeros would hide what is behind them
            program.parameters[p.span] = 0.1
    program.parameters_changed()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *shape), dtype=np.float32)
    target = rng.standard_normal((2, *program.output_specs[0].shape), dtype=np.float32)
    program.forward_backward(x, (target,), 1.0)
    output = program.criterion.outputs[0]  # type: ignore[attr-defined]
    expected_output, expected = torch_gradients(program, x, target)
    assert relative_error(output, expected_output) < 1e-4
    errors = {
        p.name: relative_error(program.gradients[p.span], expected[p.name])
        for p in program.graph.parameters
        if p.trained and not hides_its_bias(p.name)
    }
    # Rounding decides some ReLUs and maxima among few values, as PyTorch's own float32 shows; what is wired or scaled
    # wrongly is wrong by its own size. Each layer's precision is tested in test_layers_*.
    assert np.median(list(errors.values())) < 2e-2
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] < 5e-2, worst


def torch_gradients(program: compute.Program, x: Any, target: Any) -> tuple[Any, dict[str, Any]]:
    """Output and gradients of a training pass in PyTorch, in float64."""
    weights = {
        p.name: torch.tensor(program.parameters[p.span].reshape(p.spec.shape)).double().requires_grad_(p.trained)
        for p in program.graph.parameters
    }
    y = torch_twin(program.graph, torch.tensor(x).double(), weights)
    (y * torch.tensor(target)).sum().backward()
    return y.detach().numpy(), {name: w.grad.numpy().ravel() for name, w in weights.items() if w.grad is not None}


def hides_its_bias(name: str) -> bool:
    """Biases before a batch normalization, whose gradient is 0 but for rounding."""
    return name.endswith("bias") and "bn" not in name and "fc2" not in name and "classifier" not in name


def relative_error(found: Any, expected: Any) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_resnet_learns_some_samples() -> None:
    model = models.resnet20(2)
    program = compute.compile(model, nn.NLLLoss(), CIFAR, engine="numpy")
    program.parameters[:] = compute.initial_parameters(model, CIFAR, 1)
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((4, *CIFAR), dtype=np.float32), np.array([0, 1, 0, 1])
    losses = []
    for step in range(15):
        program.parameters_changed()
        losses.append(program.forward_backward(x, target, 0.25, (1, step, 0)) / 4)
        trained = slice(0, sum(p.size for p in program.graph.parameters if p.trained))
        program.parameters[trained] -= 0.1 * program.gradients[trained]
    assert losses[0] == pytest.approx(np.log(2), abs=0.05)
    assert losses[-1] < 0.3 * losses[0]


def test_dropout_of_vgg_follows_the_key() -> None:
    program = compute.compile(models.vgg_cifar10(), nn.NLLLoss(), CIFAR, engine="numpy")
    program.parameters[:] = compute.initial_parameters(models.vgg_cifar10(), CIFAR, 1)
    x, target = np.random.default_rng(0).standard_normal((2, *CIFAR), dtype=np.float32), np.array([0, 1])
    losses = [program.forward_backward(x, target, 0.5, (1, step, 0)) for step in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(("make", "shape", "size", "outputs"), SIZES)
def test_saved_as_data_they_are_the_same(make: Callable[[], nn.Module], shape: Shape, size: int, outputs: int) -> None:
    model = make()
    again = restore(describe(model))
    assert compute.fingerprint(again, shape) == compute.fingerprint(model, shape)
    assert [n.name for n in build_graph(again, shape).nodes] == [n.name for n in build_graph(model, shape).nodes]


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match="6 n \\+ 2"):
        models.resnet_cifar(21)
    with pytest.raises(InputError, match='"A" or "B"'):
        models.resnet20(shortcut="C")  # type: ignore[arg-type]
