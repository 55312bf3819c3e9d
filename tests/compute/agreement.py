"""Records how far our results are from an oracle's, and makes a table of it.

In a test, instead of numpy's assert_allclose:

    from agreement import agrees

    agrees("layer", "Conv2d", got, wanted, tolerance=1e-5, engine="onednn", precision="fp32", oracle="PyTorch")

It fails where |got - wanted| is larger than tolerance * (|wanted| + floor * largest |wanted|): the relative error, but
near zero relative to the array's largest value, for no float32 sum can do better. If the environment variable
MESOGRAD_AGREEMENT names a file, each comparison also appends a line of JSON to it: kind, name, engine, precision,
oracle, part and error. From these lines

    MESOGRAD_AGREEMENT=agreement.jsonl pytest tests/compute
    python -m tests.compute.agreement agreement.jsonl docs/agreement.md

makes the table: for each component its engines and precisions, the oracle, the number of comparisons, the worst error.
Appending is safe from several processes.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

VARIABLE = "MESOGRAD_AGREEMENT"
FLOOR = 1e-2
KINDS = ("layer", "criterion", "optimizer", "schedule", "metric", "topology")


class Comparison(NamedTuple):
    """One comparison with an oracle. `part` says of what: "output", "gradient"; `error` is the relative error."""

    kind: str
    name: str
    engine: str
    precision: str
    oracle: str
    part: str
    error: float


def relative_error(got: ArrayLike, wanted: ArrayLike, floor: float = FLOOR) -> float:
    """The largest |got - wanted| / (|wanted| + floor * largest |wanted|); NaN or infinity must be the same in both."""
    g, w = np.asarray(got, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    if g.shape != w.shape:
        raise AssertionError(f"shapes differ: got {g.shape}, wanted {w.shape}")
    usual = np.isfinite(w)
    if not np.array_equal(g[~usual], w[~usual], equal_nan=True) or not np.isfinite(g[usual]).all():
        return float("inf")
    g, w = g[usual], w[usual]
    if not w.size or np.array_equal(g, w):
        return 0.0
    size = np.abs(w)
    divisor = size + floor * size.max()
    if not size.max():
        return float(np.abs(g).max())  # against zeros there is only the absolute error
    return float((np.abs(g - w) / divisor).max())


def record(comparison: Comparison) -> None:
    """Appends a comparison that a test has made by itself to the file, if there is one."""
    path = os.environ.get(VARIABLE)
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(comparison._asdict()) + "\n")


def agrees(
    kind: str,
    name: str,
    got: ArrayLike,
    wanted: ArrayLike,
    *,
    tolerance: float = 1e-5,
    engine: str = "numpy",
    precision: str = "fp32",
    oracle: str = "PyTorch",
    part: str = "output",
    floor: float = FLOOR,
) -> float:
    """Asserts that `got` is within `tolerance` of the oracle's `wanted`, and records the error. See the module.

    Args:
        kind: one of KINDS.
        engine: "all" for what is the same code whatever the engine.
        oracle: what really gave `wanted`: "PyTorch", "formula", "brute force", "finite differences".
        name: of the component, as users call it: "Conv2d".
        floor: what part of the largest value counts as the least value that an error is relative to.

    Returns:
        The relative error.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    error = relative_error(got, wanted, floor)
    record(Comparison(kind, name, engine, precision, oracle, part, error))
    assert error <= tolerance, f"{kind} {name}, {part} ({engine}, {precision}): relative error {error:.2e} of {oracle}"
    return error


def read(path: Path) -> list[Comparison]:
    """The comparisons in a file that tests wrote."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Comparison(**json.loads(line)) for line in lines if line.strip()]


def table(comparisons: list[Comparison]) -> str:
    """Markdown: a table for each kind, a row for each component, with the worst error of each engine and precision."""
    text = [
        "# Agreement with oracles",
        "",
        "Made by `python -m tests.compute.agreement` from a run of the tests; do not edit. Errors are the worst of all",
        "comparisons of outputs, losses and gradients: relative to the value, near zero to 1% of the largest value.",
        "Engine `all`: computed by the same code whatever the engine. Areas under curves are estimates from histograms",
        "(docs/criterions.md), so their errors are larger. Errors of layers are relative to the largest value. In bf16",
        "inputs, weights and output gradients are numbers that bfloat16 has; stacks of a dozen layers may err by more",
        "than 2e-2 there, as PyTorch's do.",
        "",
    ]
    for kind in KINDS:
        rows: dict[str, list[Comparison]] = defaultdict(list)
        for comparison in comparisons:
            if comparison.kind == kind:
                rows[comparison.name].append(comparison)
        if not rows:
            continue
        columns = sorted({(c.engine, c.precision) for group in rows.values() for c in group})
        heads = [f"{engine} {precision}" for engine, precision in columns]
        text += [f"## {kind.capitalize()}s ({len(rows)})", ""]
        text += [_row(["name", "oracle", "comparisons", *heads]), _row(["---"] * (3 + len(heads)))]
        for name, group in sorted(rows.items(), key=lambda item: item[0].lower()):
            worst = {
                column: max((c.error for c in group if (c.engine, c.precision) == column), default=None)
                for column in columns
            }
            oracles = ", ".join(sorted({c.oracle for c in group}))
            errors = ["" if error is None else f"{error:.1e}" for error in worst.values()]
            text.append(_row([name, oracles, str(len(group)), *errors]))
        text.append("")
    return "\n".join(text)


def _row(cells: list[Any]) -> str:
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str]) -> int:
    """python -m tests.compute.agreement LINES [TABLE]: writes the table to a file or to standard output."""
    if len(arguments) not in (1, 2):
        print("usage: python -m tests.compute.agreement LINES.jsonl [TABLE.md]", file=sys.stderr)
        return 2
    text = table(read(Path(arguments[0])))
    if len(arguments) == 2:
        Path(arguments[1]).write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
