"""What holds for every layer that nn exports: determinism, saving, documentation, and what it may be taken for."""

from __future__ import annotations

import inspect
import pickle
import pydoc
import re

import numpy as np
import pytest
from layer_check import ENGINES, WeightedSum
from layer_examples import examples, inputs, layers

import compute
from compute import TensorSpec, nn
from compute.description import describe, restore

EXAMPLES = examples()
NAMES = sorted(set(layers()) & set(EXAMPLES))
KEY = (2**63 + 5, 7, 1)


def passes(module: nn.Module, specs: tuple[TensorSpec, ...], engine: str, key: tuple[int, int, int]) -> list[bytes]:
    """Bits of a training pass: outputs and gradients; of an evaluation, and of a second training pass."""
    rng = np.random.default_rng(0)
    arrays = inputs(specs, 4, rng)
    criterion = WeightedSum()
    program = compute.compile(module, criterion, specs, engine=engine)
    program.parameters[:] = compute.initial_parameters(module, specs, 1)
    program.parameters_changed()
    targets = tuple(rng.standard_normal((4, *s.shape), dtype=np.float32) for s in program.output_specs)
    found = []
    for _ in range(2):
        program.gradients.fill(np.nan)
        program.forward_backward(arrays, targets, 0.25, key)
        found += [y.tobytes() for y in criterion.outputs] + [program.gradients.tobytes()]
        outputs = program.forward(arrays)
        found += [y.tobytes() for y in (outputs if isinstance(outputs, tuple) else (outputs,))]
    return found


def test_every_exported_layer_has_an_example() -> None:
    missing = sorted(set(layers()) - set(EXAMPLES))
    assert not missing, f"add {', '.join(missing)} to tests/compute/layer_examples.py"
    assert sorted(set(EXAMPLES) - set(layers())) == []


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_every_time(name: str, engine: str) -> None:
    """Same key: same bits, in two programs of two equal models, and in two passes of one; after a pickle as well."""
    make, specs = EXAMPLES[name]
    module = make()
    first = passes(module, specs, engine, KEY)
    assert first[: len(first) // 2] == first[len(first) // 2 :]
    assert passes(make(), specs, engine, KEY) == first
    assert passes(pickle.loads(pickle.dumps(module)), specs, engine, KEY) == first


@pytest.mark.parametrize("name", ["Dropout", "GaussianDropout", "GaussianNoise", "GaussianSampler", "RReLU"])
def test_random_layers_differ_between_micro_batches(name: str) -> None:
    make, specs = EXAMPLES[name]
    assert passes(make(), specs, "numpy", KEY) != passes(make(), specs, "numpy", (*KEY[:2], KEY[2] + 1))


@pytest.mark.parametrize("name", NAMES)
def test_layers_come_back_from_their_description(name: str) -> None:
    make, specs = EXAMPLES[name]
    module = make()
    for index, inner in enumerate(module.modules()):
        inner.weight_rate_scale = 1.0 + index
    back = restore(describe(module))
    assert type(back) is type(module)
    assert compute.parameter_layout(back, specs) == compute.parameter_layout(module, specs)
    assert [m.weight_rate_scale for m in back.modules()] == [m.weight_rate_scale for m in module.modules()]
    assert passes(back, specs, "numpy", KEY) == passes(module, specs, "numpy", KEY)


@pytest.mark.parametrize("name", layers())
def test_help_tells_what_a_layer_does(name: str) -> None:
    """A text of its own that says what it computes and on which shapes."""
    cls = getattr(nn, name)
    text = cls.__dict__.get("__doc__") or ""
    assert len(text) > 20, f"{name} has no docstring"
    if not issubclass(cls, nn.Cell):  # their shapes are those of the layer that runs them
        assert re.search(r"shape|sample|table|sequence|\([\w*]*,|\(n, ", text), f"{name} names no shape"
    first = inspect.cleandoc(text).splitlines()[0]
    assert first[-1] in ".:", f"{name}: the first line is no sentence: {first!r}"
    rendered = pydoc.render_doc(cls, renderer=pydoc.plaintext)
    assert first in rendered
    assert f"class {name}" in rendered


SAME_MEANING = {
    ("Add", "CAdd"),
    ("Bottle", "TimeDistributed"),
    ("Clamp", "Hardtanh"),
    ("Contiguous", "Identity"),
    ("Flatten", "Reshape"),
    ("InferReshape", "Reshape"),
    ("Mul", "CMul"),
    ("Negative", "MulConstant"),
    ("ReLU6", "Hardtanh"),
    ("Reverse", "Flip"),
    ("View", "Reshape"),
}
"""Subclasses that compute what their base does, given its attributes and the output's shape."""

BASES = {"Module", "Layer", "UnaryLayer", "CustomLayer", "Container", "Elementwise", "Cell"}


@pytest.mark.parametrize("name", [name for name in layers() if not issubclass(getattr(nn, name), nn.Cell)])
def test_no_layer_passes_for_one_that_computes_something_else(name: str) -> None:
    """Engines choose kernels by isinstance: a mean that is a subclass of a sum would be computed as a sum."""
    bases = {base.__name__ for base in getattr(nn, name).__mro__[1:]} & set(nn.__all__) - BASES
    assert {(name, base) for base in bases} <= SAME_MEANING
