"""The table of agreement with oracles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from agreement import Comparison, agrees, main, read, relative_error, table


def test_relative_error() -> None:
    assert relative_error([1.0, 2.0], [1.0, 2.0]) == 0.0
    assert relative_error([101.0], [100.0], floor=0.0) == pytest.approx(0.01)
    assert relative_error([1e-3, 1.0], [0.0, 1.0], floor=1e-2) == pytest.approx(0.1)  # near zero: of 1% of the largest
    assert relative_error([1e-3], [0.0]) == 1e-3
    assert relative_error([np.inf, np.nan, 1.0], [np.inf, np.nan, 1.0]) == 0.0
    assert relative_error([np.inf], [-np.inf]) == np.inf
    assert relative_error([np.nan], [1.0]) == np.inf
    assert relative_error([], []) == 0.0
    with pytest.raises(AssertionError, match="shapes"):
        relative_error([1.0, 1.0], [[1.0], [1.0]])


def test_comparisons_are_recorded_and_tabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, page = tmp_path / "lines.jsonl", tmp_path / "table.md"
    monkeypatch.setenv("MESOGRAD_AGREEMENT", str(lines))
    agrees("layer", "Tanh", [1.0], [1.0 + 1e-7], engine="mkl")
    agrees("layer", "Tanh", [1.0], [1.01], tolerance=2e-2, engine="onednn", precision="bf16", part="gradient")
    agrees("layer", "ReLU", [2.0], [2.0], engine="mkl", oracle="formula")
    with pytest.raises(AssertionError, match=r"layer Tanh, output \(numpy, fp32\): relative error"):
        agrees("layer", "Tanh", [1.0], [1.1])
    with pytest.raises(ValueError, match="kind must be"):
        agrees("colour", "Tanh", [1.0], [1.0])
    found = read(lines)
    assert len(found) == 4
    assert found[1] == Comparison("layer", "Tanh", "onednn", "bf16", "PyTorch", "gradient", found[1].error)
    assert main([str(lines), str(page)]) == 0
    assert page.read_text() == table(found)
    rows = [line for line in table(found[:3]).splitlines() if line.startswith("|")]
    assert rows == [
        "| name | oracle | comparisons | mkl fp32 | onednn bf16 |",
        "| --- | --- | --- | --- | --- |",
        "| ReLU | formula | 1 | 0.0e+00 |  |",
        "| Tanh | PyTorch | 2 | 9.9e-08 | 9.8e-03 |",
    ]
    assert main([]) == 2


def test_nothing_is_written_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESOGRAD_AGREEMENT", raising=False)
    monkeypatch.chdir(tmp_path)
    agrees("layer", "Tanh", [1.0], [1.0])
    assert list(tmp_path.iterdir()) == []
