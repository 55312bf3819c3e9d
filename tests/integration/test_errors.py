"""Mistakes and bad luck: one clear line, a non-zero exit, nothing left running, no checkpoint harmed."""

import gzip
import hashlib
import shutil
import socket
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.cluster import EmbeddedCluster
from tests.data_files import FASHION_MNIST, write_subset
from tests.integration.runs import LENET, WORK, Run, leftovers, run_to_end

pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No process of ours after the test but those of a cluster that the test was given."""
    before = set(leftovers())
    yield
    assert [line for line in leftovers() if line not in before] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subset(tmp_path_factory.mktemp("data"), train=3200, test=200)


def fails(*arguments: str, code: int, stdout_lines: int | None = 0) -> str:
    """Runs it; returns the one line on standard error."""
    run = run_to_end(arguments)
    assert run.process.returncode == code, run.output
    assert len(run.errors) == 1, run.output
    assert run.errors[0].startswith("mesograd: ")
    if stdout_lines is not None:
        assert len(run.lines) == stdout_lines, run.output
    return run.errors[0]


def local(*arguments: str) -> tuple[str, ...]:
    return ("--master", "local[2]", "--workers", "2", "--servers", "2", *arguments)


# --- found before anything is started --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--frobnicate", LENET), ["--frobnicate"]),
        (("--workers", "0", LENET), ["--workers", "0"]),
        (("--servers", "-1", LENET), ["--servers", "-1"]),
        (("--workers", "many", LENET), ["--workers", "many"]),
        (("--master", "local[zero]", LENET), ["local[zero]", "local[N]"]),
        (("--master", "no.such.host.invalid", LENET, "-f", str(FASHION_MNIST)), ["no.such.host.invalid", "--master"]),
        (("no_such_script.py",), ["no_such_script.py"]),
        ((), ["SCRIPT"]),
        (("--resume", LENET, "-f", str(FASHION_MNIST)), ["--resume", "checkpoint"]),
        (
            ("--server-replicas", "1", "--sync", "async", LENET, "-f", str(FASHION_MNIST)),
            ["--server-replicas", "--sync async"],
        ),
    ],
)
def test_options(arguments: tuple[str, ...], words: list[str]) -> None:
    line = fails(*arguments, code=2)
    assert all(word in line for word in words), line


def test_data_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    missing = fails(*local(LENET, "-f", str(tmp_path / "nowhere")), code=2)
    assert str(tmp_path / "nowhere") in missing

    cut = shutil.copytree(folder, tmp_path / "cut")
    images = cut / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100])
    line = fails(*local(LENET, "-f", str(cut)), code=2)
    assert str(images) in line

    magic = shutil.copytree(folder, tmp_path / "magic")
    labels = magic / "t10k-labels-idx1-ubyte"
    labels.write_bytes(b"\x00\x00\x08\x02" + labels.read_bytes()[4:])
    line = fails(*local(LENET, "-f", str(magic)), code=2)
    assert str(labels) in line
    assert "magic" in line

    packed = tmp_path / "packed"
    packed.mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        data = gzip.compress((folder / f"{name}-ubyte").read_bytes(), 1)
        (packed / f"{name}-ubyte.gz").write_bytes(data[:-200] if name == "train-labels-idx1" else data)
    line = fails(*local(LENET, "-f", str(packed)), code=2)
    assert "train-labels-idx1-ubyte.gz" in line


def test_no_master_at_the_address(folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = fails("--master", f"127.0.0.1:{port}", LENET, "-f", str(folder), code=2)
    assert f"127.0.0.1:{port}" in line
    line = fails("--master", f"zk://127.0.0.1:{port}/mesos", LENET, "-f", str(folder), code=2)
    assert f"127.0.0.1:{port}" in line


def write_script(path: Path, body: str, folder: Path) -> str:
    """A training script: LeNet-5 with changes."""
    path.write_text(
        textwrap.dedent(
            """\
            import numpy as np
            from compute import data, models, nn, optim, trigger
            from scheduler import TrainingJob
            FOLDER = {folder!r}
            model, rate, batch = models.lenet5(), 0.05, 64
            dataset = data.mnist(FOLDER) >> data.normalize(0.286, 0.353)
            """
        ).format(folder=str(folder))
        + textwrap.dedent(body)
        + textwrap.dedent(
            """
            TrainingJob(model, nn.NLLLoss(), dataset, optim.SGD(rate, momentum=0.9), batch, trigger.max_epoch(1)).run()
            """
        )
    )
    return str(path)


def test_a_script_that_raises(folder: Path, tmp_path: Path) -> None:
    script = write_script(tmp_path / "broken.py", "def helper():\n    return {}['no such key']\nhelper()\n", folder)
    run = run_to_end(local(script))
    assert run.process.returncode == 1
    assert run.lines == []
    assert run.errors[0] == "Traceback (most recent call last):"
    assert run.errors[-1] == "KeyError: 'no such key'"
    files = [line for line in run.errors if line.startswith("  File ")]
    assert len(files) == 2, run.output  # the user's two frames, none of ours
    assert all(f'File "{script}", line ' in line for line in files)
    assert any("return {}['no such key']" in line for line in run.errors)


# --- found on the cluster --------------------------------------------------------------------------------------------


def test_a_layer_that_raises_on_the_executor(folder: Path, tmp_path: Path) -> None:
    body = """
    class Bad(nn.CustomLayer):
        def forward(self, x, parameters, context):
            return x[np.newaxis, 3, "nonsense"]
        def backward(self, x, y, grad_y, parameters, gradients, context):
            return grad_y
    model = nn.Sequential(Bad(), models.lenet5())
    """
    script = write_script(tmp_path / "bad_layer.py", body, folder)
    run = run_to_end(local(script))
    assert run.process.returncode == 1, run.output
    text = "\n".join(run.errors)
    assert f'File "{script}", line ' in text, run.output
    assert 'return x[np.newaxis, 3, "nonsense"]' in text
    assert run.errors[-1].startswith("mesograd: ")
    assert "worker" in run.errors[-1]
    assert "IndexError" in run.errors[-1]


def test_a_layer_and_a_transform_of_the_script_work_on_executors(folder: Path, tmp_path: Path) -> None:
    body = """
    import helper_beside_the_script
    class Double(nn.CustomLayer):
        def forward(self, x, parameters, context):
            return helper_beside_the_script.twice(x)
        def backward(self, x, y, grad_y, parameters, gradients, context):
            return helper_beside_the_script.twice(grad_y)
    class Flip(data.Transform):
        def apply(self, x, target, stream):
            return x[..., ::-1].copy(), target
    model = nn.Sequential(Double(), models.lenet5())
    dataset = data.mnist(FOLDER) >> data.normalize(0.286, 0.353) >> Flip()
    """
    (tmp_path / "helper_beside_the_script.py").write_text("def twice(x):\n    return 2 * x\n")
    run = run_to_end(local(write_script(tmp_path / "custom.py", body, folder)))
    assert run.process.returncode == 0, run.output
    assert "epoch 1 done at step 50: 3200 samples, each sample once" in run.lines


@pytest.mark.usefixtures("nothing_remains")
def test_resources_that_no_agent_can_offer(cluster: EmbeddedCluster, folder: Path) -> None:
    line = fails(
        "--master", cluster.master, "--cpus-per-worker", "64", LENET, "-f", str(folder), code=1, stdout_lines=None
    )
    assert "64" in line
    assert "largest offer" in line
    line = fails(
        "--master", cluster.master, "--mem-per-worker", "99999999", LENET, "-f", str(folder), code=1, stdout_lines=None
    )
    assert "99999999" in line
    assert "largest offer" in line


def test_a_loss_that_is_not_a_number(folder: Path, tmp_path: Path) -> None:
    body = """
    rate = 1e30
    model = nn.Sequential(nn.Reshape(784), nn.Linear(784, 10), nn.ReLU(), nn.Linear(10, 10), nn.LogSoftmax())
    """
    line = fails(*local(write_script(tmp_path / "nan.py", body, folder)), code=1, stdout_lines=None)
    assert "diverged" in line
    assert "learning rate" in line
    assert "step" in line


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*") if path.is_file()
    }  # fmt: skip


def test_checkpoints_that_cannot_be_resumed(folder: Path, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    script = (LENET, "-f", str(folder), "-b", "64", "--checkpoint", str(directory))
    nothing = fails(*local("--resume", *script, "-e", "1"), code=2, stdout_lines=None)
    assert "nothing to resume" in nothing
    assert run_to_end(local(*script, "-e", "1")).process.returncode == 0
    whole = digests(directory)
    assert any(name.endswith("checkpoint.pb") for name in whole)

    again = fails(*local(*script, "-e", "2"), code=2, stdout_lines=None)
    assert "--resume" in again
    other = fails(*local("--resume", *script, "-e", "2", "--seed", "5"), code=2, stdout_lines=None)
    assert "seed" in other
    body = f"""
    model = models.lenet5(classes=11)
    job = TrainingJob(model, nn.NLLLoss(), dataset, optim.SGD(rate, momentum=0.9, weight_decay=5e-4), batch,
                      trigger.max_epoch(2))
    job.checkpoint({str(directory)!r}, trigger.every_epoch()).run()
    """
    model = fails(*local("--resume", write_script(tmp_path / "m.py", body, folder)), code=2, stdout_lines=None)
    assert "another model" in model
    assert digests(directory) == whole, "a refused job has touched the checkpoint"

    part = next(directory.rglob("slice-*.bin"))
    data = part.read_bytes()
    part.write_bytes(data[: len(data) // 2])
    cut = fails(*local("--resume", *script, "-e", "2"), code=2, stdout_lines=None)
    assert "damaged" in cut
    part.write_bytes(data)
    assert digests(directory) == whole
    resumed = Run.start(*local("--resume", *script, "-e", "2"))
    assert resumed.finish() == 0, resumed.output
    assert "epoch 2 done at step 100: 3200 samples, each sample once" in resumed.lines


def test_nothing_of_ours_is_below_the_temporary_directory_after_all_that() -> None:
    """Embedded clusters of these runs lived there."""
    assert [path.name for path in WORK.glob("mesograd-cluster-*")] == []
