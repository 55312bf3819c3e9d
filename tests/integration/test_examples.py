"""Every example trains for two steps on files of the true format."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import compute
from benchmarks import fashion_cifar
from tests.data_files import FASHION_MNIST
from tests.integration.runs import ROOT, leftovers, run_to_end

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cifar")
    fashion_cifar.write(FASHION_MNIST, folder, train=100, test=20)
    return folder


@pytest.fixture(scope="module")
def photos(cifar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images of two classes and several sizes."""
    folder = tmp_path_factory.mktemp("photos")
    images = np.fromfile(cifar / "data_batch_1.bin", dtype=np.uint8).reshape(-1, 3073)[:8, 1:].reshape(8, 3, 32, 32)
    for part in ("train", "val"):
        for number, image in enumerate(images):
            place = folder / part / f"class{number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(image.transpose(1, 2, 0)).resize((256 + 8 * number, 280))
            picture.save(place / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What prepare_text.py makes of some lines."""
    folder = tmp_path_factory.mktemp("text")
    command = [sys.executable, str(ROOT / "examples" / "prepare_text.py"), "-o", str(folder), "--max-vocabulary", "50"]
    source = folder / "source.txt"
    source.write_text("\n".join(f"the quick fox number {n % 7} jumps over the lazy dog" for n in range(2400)))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*command, "--text", str(source)], check=True, timeout=60, env=env, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def newsgroups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("news")
    for label in ("sci.space", "rec.autos"):
        (folder / label).mkdir()
        for number in range(20):
            (folder / label / f"{number}.txt").write_text(f"{label} message {number} about {label} and no other thing")
    return folder


def train(folder: Path, tmp_path: Path, script: str, *flags: str) -> None:
    """Two steps of an example with all outputs asked for."""
    summary, checkpoint = tmp_path / "summary", tmp_path / "checkpoint"
    run = run_to_end([
        "--master", "local[1]", "--workers", "2", str(ROOT / "examples" / f"{script}.py"), "-f", str(folder), *flags,
        "--micro-batches", "2", "-e", "1", "--max-iteration", "2", "-l", "0.01",
        "--summary", str(summary), "--checkpoint", str(checkpoint),
    ])  # fmt: skip
    assert run.process.returncode == 0, run.errors
    assert any("weights sha256" in line for line in run.lines), run.lines
    assert list(summary.rglob("*tfevents*"))
    saved = compute.load_model(next(iter(checkpoint.glob("step-*"))))
    assert np.isfinite(saved.parameters).all()
    assert not leftovers()


def test_vgg(cifar: Path, tmp_path: Path) -> None:
    train(cifar, tmp_path, "train_vgg", "--augment", "-b", "16", "--weightDecay", "5e-4")


def test_resnet(cifar: Path, tmp_path: Path) -> None:
    train(cifar, tmp_path, "train_resnet", "--depth", "20", "--augment", "--warm-up", "2", "-b", "16")


def test_inception(photos: Path, tmp_path: Path) -> None:
    train(photos, tmp_path, "train_inception", "--classes", "2", "-b", "4")


def test_autoencoder(tmp_path: Path) -> None:
    train(FASHION_MNIST, tmp_path, "train_autoencoder", "--max-iteration", "2")


def test_text_cnn(newsgroups: Path, tmp_path: Path) -> None:
    flags = ["--vocabulary", str(tmp_path / "words.txt"), "-b", "8", "--length", "40", "--embedding", "8"]
    train(newsgroups, tmp_path, "train_text_cnn", *flags)


def test_simple_rnn(text: Path, tmp_path: Path) -> None:
    train(text, tmp_path, "train_simple_rnn", "-b", "8")


def test_lstm_language_model(text: Path, tmp_path: Path) -> None:
    train(text, tmp_path, "train_lstm_lm", "-b", "8", "--hiddenSize", "16", "--numSteps", "10")


def test_transformer_language_model(text: Path, tmp_path: Path) -> None:
    flags = ["-b", "8", "--hiddenSize", "16", "--numHeads", "2", "--numLayers", "2", "--numSteps", "10"]
    train(text, tmp_path, "train_transformer_lm", *flags)
