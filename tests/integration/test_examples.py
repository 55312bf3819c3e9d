"""Every example trains for two steps on files of the true format."""

from pathlib import Path

import pytest

from benchmarks import fashion_cifar
from tests.data_files import FASHION_MNIST
from tests.integration.runs import ROOT, leftovers, run_to_end

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cifar")
    fashion_cifar.write(FASHION_MNIST, folder, train=100, test=20)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["train_vgg.py", "--augment", "--weight-decay", "5e-4"],
        ["train_resnet.py", "--depth", "20", "--augment", "--warm-up", "2"],
    ],
    ids=lambda arguments: arguments[0].removesuffix(".py"),
)
def test_image_examples(cifar: Path, tmp_path: Path, arguments: list[str]) -> None:
    script, *flags = arguments
    summary, checkpoint = tmp_path / "summary", tmp_path / "checkpoint"
    run = run_to_end([
        "--master", "local[1]", "--workers", "2", str(ROOT / "examples" / script), "-f", str(cifar), *flags,
        "-b", "16", "--micro-batches", "2", "-e", "1", "--max-iteration", "2", "-l", "0.01",
        "--summary", str(summary), "--checkpoint", str(checkpoint),
    ])  # fmt: skip
    assert run.process.returncode == 0, run.errors
    assert any("weights sha256" in line for line in run.lines), run.lines
    assert list(summary.rglob("*tfevents*"))
    assert list(checkpoint.glob("step-*"))
    assert not leftovers()
