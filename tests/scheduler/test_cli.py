"""`mesograd run` as a user meets it: exit codes, and exactly one clear line for each mistake."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data_files import write_subset

ROOT = Path(__file__).resolve().parent.parent.parent
LENET = ROOT / "examples" / "train_lenet.py"
TIMEOUT_S = 60


def mesograd(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "scheduler.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment,
        stdin=subprocess.DEVNULL,
        **options,
    )


def complaint(result, code):
    """The one line on standard error."""
    assert result.returncode == code, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("mesograd: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--bogus", "x.py"], "No such option"),
        (["run", "--workers", "0", "x.py"], "--workers"),
        (["run", "--workers", "two", "x.py"], "--workers"),
        (["run", "--servers", "0", "x.py"], "--servers"),
        (["run", "--cpus-per-worker", "0", "x.py"], "--cpus-per-worker"),
        (["run", "--mem-per-worker", "1", "x.py"], "--mem-per-worker"),
        (["run", "--engine", "cuda", "x.py"], "--engine"),
        (["run", "--master", "local[0]", "x.py"], "--master"),
        (["run", "--secret-file", "/no/such", "x.py"], "--secret-file"),
        (["run"], "SCRIPT"),
        (["run", "no_such_script.py"], "script not found: no_such_script.py"),
        (["fly"], "No such command"),
        (["run", LENET, "-f", "/no/such/folder"], "/no/such/folder does not exist"),
        (["run", "--resume", LENET, "-f", "{data}"], "--resume needs checkpoints"),
        (["run", "--master", "127.0.0.1:1", LENET, "-f", "{data}"], "no Mesos master at 127.0.0.1:1"),
        (["run", LENET, "-f", "{data}", "-b", "0"], "batch_size"),
        (["run", LENET, "-f", "{data}", "--learning-rate", "-1"], "learning"),
    ],
)
def test_mistakes_are_one_line(tmp_path, data, arguments, said):
    result = mesograd(*[str(a).replace("{data}", str(data)) for a in arguments], cwd=tmp_path)
    assert said in complaint(result, 2)
    assert result.stdout == ""
    assert [path for path in os.listdir(tmp_path) if path != "data"] == [], "nothing was started, nothing was written"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from tests.data_files import write_subset

    return write_subset(tmp_path_factory.mktemp("data"), train=640, test=100)


def script(tmp_path, text):
    path = tmp_path / "script.py"
    path.write_text(text)
    return path


def test_a_script_that_raises_shows_its_own_lines_only(tmp_path):
    path = script(
        tmp_path,
        "def inner():\n    raise KeyError('user bug')\n"
        "try:\n    inner()\nexcept KeyError as error:\n    raise RuntimeError('outer') from error\n",
    )
    result = mesograd("run", path)
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback (most recent call last):\n")
    assert result.stderr.endswith("RuntimeError: outer\n")
    files = [line.split('"')[1] for line in result.stderr.splitlines() if line.startswith("  File ")]
    assert files == [str(path)] * 3
    assert "line 2, in inner" in result.stderr


def test_frames_of_ours_are_left_out(tmp_path):
    path = script(tmp_path, "from compute import data\ndata.from_arrays(1, 2, 3, 4, 5)\n")
    result = mesograd("run", path)
    assert result.returncode == 1
    assert [line for line in result.stderr.splitlines() if line.startswith("  File ")] == [
        f'  File "{path}", line 2, in <module>'
    ]


def test_a_wrong_value_for_a_layer_is_one_line(tmp_path):
    assert "Conv2d" in complaint(mesograd("run", script(tmp_path, "from compute import nn\nnn.Conv2d(1, -1, 5)\n")), 2)


def test_a_syntax_error(tmp_path):
    result = mesograd("run", script(tmp_path, "def f(:\n"))
    assert result.returncode == 1
    assert "script.py" in result.stderr
    assert "runpy" not in result.stderr
    assert result.stderr.rstrip().endswith("SyntaxError: invalid syntax")


@pytest.mark.parametrize(("text", "code"), [("import sys; sys.exit(7)", 7), ("raise SystemExit", 0)])
def test_a_script_may_exit(tmp_path, text, code):
    result = mesograd("run", script(tmp_path, text))
    assert (result.returncode, result.stderr) == (code, "")


def test_the_script_gets_its_arguments_and_is_main(tmp_path):
    (tmp_path / "beside.py").write_text("NAME = 'beside'\n")
    path = script(tmp_path, "import sys, beside\nprint(__name__, beside.NAME, sys.argv)\nsys.exit(0)\n")
    result = mesograd("run", "--workers", "3", path, "--workers", "9", "-f", "x")
    assert result.stdout == f"__main__ beside ['{path}', '--workers', '9', '-f', 'x']\n"


def test_a_script_that_trains_nothing_is_told_so(tmp_path):
    assert "nothing was trained" in complaint(mesograd("run", script(tmp_path, "pass\n")), 0)


def test_help_and_version():
    assert "cluster" in mesograd("--help").stdout
    assert "--cpus-per-worker" in mesograd("run", "--help").stdout
    assert mesograd("--version").stdout.startswith("mesograd")


FAILING = """
from compute import data, models, nn, optim, trigger
from scheduler import TrainingJob

class Picky(data.Transform):
    def apply(self, x, target, stream):
        if len(x) == 4:  # a micro-batch; not what is looked at before the start
            raise ZeroDivisionError("user mistake")
        return x, target

TrainingJob(
    model=models.lenet5(), criterion=nn.NLLLoss(), dataset=data.mnist({data!r}) >> data.normalize(0.3, 0.3) >> Picky(),
    optimizer=optim.SGD(0.1), batch_size=32, end_when=trigger.max_epoch(1),
).run()
"""


@pytest.mark.cluster
def test_a_script_that_raises_on_the_executor(tmp_path, data):
    result = mesograd("run", script(tmp_path, FAILING.format(data=str(data))))
    assert result.returncode == 1
    *detail, last = result.stderr.splitlines()
    assert last.startswith("mesograd: the job's own code failed in worker 0 on ")
    assert last.endswith("user mistake")
    assert 'raise ZeroDivisionError("user mistake")' in "\n".join(detail)
    assert f'File "{tmp_path / "script.py"}", line 8, in apply' in "\n".join(detail)


@pytest.mark.cluster
def test_training_on_an_embedded_cluster(tmp_path, data):
    """Results on standard output, nothing on standard error, at most 200 MB resident."""
    command = [sys.executable, "-m", "scheduler.cli", "run", "--master", "local[2]", "-v", str(LENET), "-f", str(data)]
    command += ["-b", "64", "-e", "2", "--summary", str(tmp_path / "logs"), "--checkpoint", str(tmp_path / "ck")]
    # Linux counts a forked child's largest size from its parent's on, so a small process stands in between.
    between = (
        "import pathlib, resource, subprocess, sys; code = subprocess.call(sys.argv[2:]);"
        "size = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss;"
        "pathlib.Path(sys.argv[1]).write_text(str(size)); sys.exit(code)"
    )
    command = [sys.executable, "-c", between, str(tmp_path / "maxrss"), *command]
    with open(tmp_path / "out", "wb") as out, open(tmp_path / "err", "wb") as err:
        child = subprocess.run(
            command, stdout=out, stderr=err, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120, check=False
        )
    lines = (tmp_path / "out").read_text().splitlines()
    assert child.returncode == 0, (tmp_path / "err").read_text()
    assert any(line.startswith("test accuracy: 0.") for line in lines)
    assert any(line.startswith("weights sha256: ") and len(line.split()[-1]) == 64 for line in lines)
    assert sum(line.startswith("epoch ") and "each sample once" in line for line in lines) == 2
    (start_up,) = [line for line in lines if line.startswith("start-up: ")]
    for phase in ("command", "script", "cluster up", "subscribed", "tasks running", "hello", "first step"):
        assert f"{phase} +" in start_up
    assert 20 < int((tmp_path / "maxrss").read_text()) / 1024 < 200, "MB resident"

    from .test_summary import read

    train = read(tmp_path / "logs" / "train")
    assert [step for step, _ in train["Loss"]] == list(range(1, 21))
    times = {f"StepTime/{phase}" for phase in ("data", "compute", "push", "wait", "pull")}
    assert set(train) == {"Loss", "Throughput", "LearningRate"} | times
    assert [step for step, _ in read(tmp_path / "logs" / "validation")["Top1Accuracy"]] == [10, 20]


@pytest.mark.cluster
def test_sigterm_while_the_cluster_starts(tmp_path, data):
    """Whenever it comes, nothing is left."""
    command = [sys.executable, "-m", "scheduler.cli", "run", "--master", "local[2]", str(LENET), "-f", str(data)]
    home = str(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MESOGRAD_HOME": home, "TMPDIR": home}
    environment.setdefault("MESOGRAD_MESOS", str(mesos_directory()))
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    while not list(tmp_path.glob("mesograd-cluster-*")):
        assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=TIMEOUT_S)
    assert child.returncode == 143
    assert not list(tmp_path.glob("mesograd-cluster-*"))


def mesos_directory():
    from scheduler.cluster_binaries import find_mesos

    return find_mesos()


def test_profile_shows_where_a_step_goes(tmp_path):
    folder = write_subset(tmp_path / "data", train=64, test=10)
    result = mesograd("profile", "--steps", "2", "--batch", "16", LENET, "-f", folder)
    assert result.returncode == 0, result.stderr
    head, columns, *rows = result.stdout.splitlines()
    assert head == "engine onednn, fp32, 1 thread(s), 16 samples a pass"
    assert columns.split()[:3] == ["layers", "pass", "ms"]
    assert any(row.startswith("conv2_5x5") and "backward" in row and "sgemm" in row for row in rows), rows
    assert any(row.startswith("step: ") and "samples/s" in row for row in rows), rows
    assert "% of this machine's" in rows[-1]


def test_profile_of_what_cannot_be_profiled(tmp_path):
    folder = write_subset(tmp_path / "data", train=64, test=10)
    assert "profile engine onednn or mkl" in complaint(
        mesograd("profile", LENET, "-f", folder, "--engine", "numpy"), 2
    )
    assert "script not found" in complaint(mesograd("profile", "nothing.py"), 2)
