"""The API's pages can be made, and show what a user looks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_pages_are_generated(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pdoc", "--docformat", "google", "--no-search", "-o", str(tmp_path)]
    subprocess.run(
        [*command, "compute.nn.conv", "compute.program"], cwd=ROOT, check=True, timeout=120, capture_output=True
    )
    page = (tmp_path / "compute" / "nn" / "conv.html").read_text()
    assert "Conv2d" in page
    assert "in_channels" in page
    assert "forward_backward" in (tmp_path / "compute" / "program.html").read_text()
