"""Compares a layer (or a composite module) with a reference in PyTorch: outputs and all gradients, on every engine
and, on engine onednn, in bf16.

    check_layer(nn.Linear(3, 2), [(5, 3)], torch.nn.functional.linear)

The reference gets the inputs as torch tensors (n, *shape), float64 for float32 ones, and the parameters by keyword,
named as within the layer (in a composite with its path, dots as underscores). It gives a tensor or a table of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from agreement import Comparison, record
from numpy.typing import NDArray

import compute
from compute import nn
from compute.graph import GraphParameter
from compute.nn.container import Container, Wrapper
from compute.nn.table import TableModule
from compute.spec import Arrays, Shape, Specs, TensorSpec

ENGINES = ("numpy", "onednn", "mkl")

BF16_TOLERANCE = 2e-2

VANISHING = 1e-9
"""Tensors smaller than this are zero but for what float64 rounds: gradients whose terms cancel each other, as those of
an attention's keys' bias. In bf16 they are held against the largest of all tensors."""

TESTED_WITHIN = (Container, Wrapper, TableModule, nn.Cell, nn.TransformerDecoder)
"""What the error of a module around it is recorded for as well: they compute nothing, or nothing alone."""

KEY = (11, 5, 2)

# Its threads would only wait for each other at these sizes.
torch.set_num_threads(1)


def check_layer(
    module: nn.Module,
    inputs: Sequence[Shape | TensorSpec],
    reference: Callable[..., Any],
    *,
    batch: int = 3,
    data: Sequence[NDArray[Any]] | None = None,
    scale: float = 1.0,
    integers: int = 4,
    evaluation: bool = True,
    rtol: float = 1e-5,
    engines: Sequence[str] = ENGINES,
    atol: float = 0.0,
    seed: int = 0,
    bf16: float | None = BF16_TOLERANCE,
) -> None:
    """Asserts that the module agrees with the reference in training, in evaluation, and with itself to the bit.

    Args:
        module: takes as many inputs as `inputs` says; its parameters get random values around their initial ones.
        inputs: shapes of samples (float32) or specs.
        data: the inputs' arrays; by default normal numbers times `scale`, and whole numbers in 0..integers-1.
        evaluation: whether the reference holds in evaluation, too.
        engines: where kernels of libraries are less exact than the formulas, only "numpy".
        rtol: largest error allowed, relative to a tensor's largest element.
        atol: largest error allowed besides, for tensors that vanish because a function saturates.
        bf16: rtol in bf16, for numbers that bfloat16 has; None where these would be others (a sum of large numbers that
            cancel, say).
    """
    specs = tuple(item if isinstance(item, TensorSpec) else TensorSpec(item) for item in inputs)
    rng = np.random.default_rng(seed)
    arrays = tuple(data) if data is not None else tuple(_random(rng, spec, batch, scale, integers) for spec in specs)
    expected: dict[str, NDArray[Any]] = {}
    for engine in engines:
        found = _Run(module, specs, arrays, engine, seed)
        expected = expected or _expected(reference, found)
        _compare_all(module, found, expected, rtol, atol, evaluation)
        if engine == "mkl":
            continue  # its few stages have what follows in test_layers_all, where all layers have it
        again = _Run(module, specs, arrays, engine, seed, found.parameters)
        for name, value in found.tensors.items():
            assert value.tobytes() == again.tensors[name].tobytes(), f"{module.kind}/{engine}: {name} changes"
        alone = _Run(module, specs, arrays, engine, seed, found.parameters, probe=False)
        for name, value in alone.tensors.items():
            np.testing.assert_array_equal(value, found.tensors[name], f"{name}, where inputs need no gradient")
    if "onednn" in engines and bf16 is not None:
        found = _Run(module, specs, arrays, "onednn", seed, precision="bf16")
        _compare_all(module, found, _expected(reference, found), bf16, atol * bf16 / rtol, evaluation)


def _compare_all(
    module: nn.Module, found: _Run, expected: dict[str, NDArray[Any]], rtol: float, atol: float, evaluation: bool
) -> None:
    largest = max(float(np.abs(expected[name]).max(initial=0.0)) for name in found.tensors)
    for name, value in found.tensors.items():
        vanishes = found.precision == "bf16" and np.abs(expected[name]).max(initial=0.0) < VANISHING
        _compare(module, found, name, value, expected[name], rtol, rtol * largest if vanishes else atol)
    if evaluation:
        for index, value in enumerate(found.evaluated):
            _compare(module, found, f"output {index} in evaluation", value, expected[f"output {index}"], rtol, atol)


def drawn(module: nn.Module, shapes: Sequence[Shape], value: float, batch: int = 3) -> NDArray[np.float32]:
    """What a module of one output gives, where `check_layer` trains it, for inputs that are `value` everywhere."""
    specs = tuple(TensorSpec(shape) for shape in shapes)
    arrays = tuple(np.full((batch, *shape), value, dtype=np.float32) for shape in shapes)
    return _Run(module, specs, arrays, "numpy", 0).tensors["output 0"]


class WeightedSum(nn.Criterion):
    """Sum of all outputs times the targets: the gradient of an output is the target. Keeps the outputs it has seen."""

    def __init__(self) -> None:
        self.outputs: Arrays = ()

    def check(self, outputs: Specs, targets: Specs) -> None:
        pass

    def loss(self, outputs: Arrays, targets: Arrays) -> float:
        self.outputs = tuple(output.copy() for output in outputs)
        return float(sum((y.astype(np.float64) * t).sum() for y, t in zip(outputs, targets, strict=True)))

    def gradient(self, outputs: Arrays, targets: Arrays, scale: float, grads: Arrays) -> None:
        for target, grad in zip(targets, grads, strict=True):
            grad[...] = target * np.float32(scale)


class Probe(nn.UnaryLayer):
    """Adds zeros that are a parameter, whose gradient is then that of the input: arrays (batch, *shape)."""

    def __init__(self, batch: int, active: bool, name: str) -> None:
        super().__init__(name)
        self.batch = batch
        self.active = active

    def parameters(self, input_shape: Shape) -> list[nn.Parameter]:
        if not self.active:
            return []
        return [nn.Parameter("grad", (self.batch, *input_shape), nn.init.Zeros())]

    def forward(self, x: Any, parameters: Any, context: Any) -> Any:
        return x

    def backward(self, x: Any, y: Any, grad_y: Any, parameters: Any, gradients: Any, context: Any) -> Any:
        gradients["grad"] += grad_y
        return grad_y


class _Run:
    """One training pass and one evaluation of a module behind probes.

    Attributes:
        arrays: the inputs, in bf16 rounded to numbers that bfloat16 has, as are parameters and targets: what is asked
            is how exactly the module computes with them.
        tensors: "output i", "gradient of input i", "gradient of NAME".
        parameters: values of the module's weights by their names in the reference.
    """

    def __init__(
        self,
        module: nn.Module,
        specs: Specs,
        arrays: Arrays,
        engine: str,
        seed: int,
        values: dict[str, NDArray[np.float32]] | None = None,
        probe: bool = True,
        precision: str = "fp32",
    ) -> None:
        given = _bfloat16 if precision == "bf16" else _as_it_is
        self.engine, self.precision = engine, precision
        self.arrays = arrays = tuple(given(array) for array in arrays)
        wires = [nn.Input() for _ in specs]
        probed = [
            Probe(len(array), probe, f"probe{index}")(wire) if spec.dtype == "float32" else wire
            for index, (spec, wire, array) in enumerate(zip(specs, wires, arrays, strict=True))
        ]
        model = nn.Graph(wires, module(*probed))
        criterion = WeightedSum()
        program = compute.compile(model, criterion, specs, engine=engine, precision=precision)
        self.probes = {p.name: p for p in program.graph.parameters if p.name.startswith("probe")}
        own = {_local(p.name): p for p in program.graph.parameters if p.name not in self.probes}
        program.parameters[:] = compute.initial_parameters(model, specs, seed)
        rng = np.random.default_rng(seed + 1)
        for name, p in own.items():
            view = _view(program.parameters, p)
            if values is not None:
                view[...] = values[name]
                continue
            view += np.float32(0.3) * rng.standard_normal(view.shape, dtype=np.float32)
            if p.spec.kind == "statistic":  # may be a variance
                view[...] = np.abs(view) + 0.5
            view[...] = given(view)
        rng = np.random.default_rng(seed + 2)
        self.parameters = {name: _view(program.parameters, p).copy() for name, p in own.items()}
        self.weights = [name for name, p in own.items() if p.spec.kind == "weight"]
        program.parameters_changed()
        before = tuple(array.copy() for array in arrays)
        self.targets = tuple(
            given(rng.standard_normal((len(arrays[0]), *spec.shape), dtype=np.float32))
            for spec in program.output_specs
        )
        program.gradients.fill(np.nan)
        program.forward_backward(arrays, self.targets, 1.0, KEY)
        self.tensors = {f"output {index}": value for index, value in enumerate(criterion.outputs)}
        for name, p in self.probes.items():
            index = name.removeprefix("probe").removesuffix(".grad")
            self.tensors[f"gradient of input {index}"] = _view(program.gradients, p).copy()
        for name in self.weights:
            self.tensors[f"gradient of {name}"] = _view(program.gradients, own[name]).copy()
        outputs = program.forward(arrays)
        self.evaluated = tuple(y.copy() for y in (outputs if isinstance(outputs, tuple) else (outputs,)))
        for array, copy in zip(arrays, before, strict=True):
            assert array.tobytes() == copy.tobytes(), f"{module.kind} writes into its input"
        for name, p in own.items():
            np.testing.assert_array_equal(_view(program.parameters, p), self.parameters[name])


def _expected(reference: Callable[..., Any], run: _Run) -> dict[str, NDArray[Any]]:
    """What PyTorch gives for each of the run's tensors."""
    xs = [
        torch.tensor(x.astype(np.float64), requires_grad=True) if x.dtype == np.float32 else torch.tensor(x)
        for x in run.arrays
    ]
    weights = {
        name: torch.tensor(value.astype(np.float64), requires_grad=name in run.weights)
        for name, value in run.parameters.items()
    }
    ys = _flat(reference(*xs, **weights))
    total = sum((y * torch.tensor(t.astype(np.float64))).sum() for y, t in zip(ys, run.targets, strict=True))
    if isinstance(total, torch.Tensor) and total.requires_grad:
        total.backward()
    expected = {f"output {index}": y.detach().numpy() for index, y in enumerate(ys)}
    leaves = {f"input {index}": x for index, x in enumerate(xs)} | weights
    for name, leaf in leaves.items():
        if leaf.requires_grad:
            grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            expected[f"gradient of {name}"] = grad.numpy()
    return expected


def _compare(
    module: nn.Module,
    run: _Run,
    name: str,
    found: NDArray[Any],
    expected: NDArray[Any],
    rtol: float,
    atol: float,
) -> None:
    label = f"{module.kind}/{run.engine} {run.precision}: {name}"
    assert found.shape == expected.shape, f"{label} has shape {found.shape}, not {expected.shape}"
    size = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * size + atol + 1e-30, err_msg=label)
    if size > atol / rtol:
        finite = np.isfinite(expected)
        error = float(np.abs(found[finite] - expected[finite]).max(initial=0.0)) / size
        modules = list(module.modules())
        modules += [m.cell for m in modules if hasattr(m, "cell")]
        inner = {m.kind for m in modules if isinstance(m, TESTED_WITHIN)}
        for kind in sorted({module.kind} | inner):
            if hasattr(nn, kind):  # not those of a test
                record(Comparison("layer", kind, run.engine, run.precision, "PyTorch", label, error))


def _as_it_is(array: NDArray[Any]) -> NDArray[Any]:
    return array


def _bfloat16(array: NDArray[Any]) -> NDArray[Any]:
    """The nearest numbers that bfloat16 has, ties to even; whole numbers as they are."""
    if array.dtype != np.float32:
        return array
    return torch.from_numpy(array).bfloat16().float().numpy()


def _random(rng: np.random.Generator, spec: TensorSpec, batch: int, scale: float, integers: int) -> NDArray[Any]:
    if spec.dtype == "int64":
        return rng.integers(0, integers, (batch, *spec.shape))
    return rng.standard_normal((batch, *spec.shape), dtype=np.float32) * np.float32(scale)


def _local(name: str) -> str:
    """Name of a parameter without that of the module, dots as underscores."""
    return name.partition(".")[2].replace(".", "_")


def _view(flat: NDArray[np.float32], parameter: GraphParameter) -> NDArray[np.float32]:
    return flat[parameter.span].reshape(parameter.spec.shape)


def _flat(table: Any) -> list[torch.Tensor]:
    if isinstance(table, torch.Tensor):
        return [table]
    return [value for item in table for value in _flat(item)]
