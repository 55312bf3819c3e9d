"""Imports run one way (docs/architecture.md, "Rooms"), and files keep to one concept."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"compute", "proto", "executor", "scheduler"}
ALLOWED = {
    "compute": {"proto"},  # model.proto, the format of saved models
    "proto": set(),
    "executor": {"compute", "proto"},
    "scheduler": {"proto", "compute"},
}
# Where a training script builds its job, and where the script's mistakes are told.
SCHEDULER_FILES_THAT_KNOW_COMPUTE = {"evaluation_job.py", "job.py", "profile.py", "run.py", "shipping.py"}
DEPENDENCIES = {
    "compute": {"PIL", "fsspec", "google", "numpy", "pyarrow", "scipy"},
    "proto": {"addict", "google", "http_parser", "kazoo", "pymesos", "xxhash"},
    "executor": {"cloudpickle", "fsspec", "grpc", "numpy"},
    "scheduler": {"addict", "click", "cloudpickle", "grpc", "kazoo", "numpy", "psutil", "tensorboardX", "tqdm"},
}
EXECUTOR_ROOT = "executor/__main__.py"


def files(package: str) -> list[Path]:
    return [
        path
        for path in sorted((ROOT / package).rglob("*.py"))
        if "http-parser" not in path.parts and not path.name.endswith("_pb2.py")
    ]


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that the file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_run_one_way(package: str) -> None:
    for path in files(package):
        tops = {name.split(".")[0] for name in imports(path)}
        assert tops & OURS <= ALLOWED[package] | {package}, path
        if package == "scheduler" and "compute" in tops:
            assert path.name in SCHEDULER_FILES_THAT_KNOW_COMPUTE, path


@pytest.mark.parametrize("package", sorted(OURS))
def test_only_known_dependencies_are_used(package: str) -> None:
    for path in files(package):
        tops = {name.split(".")[0] for name in imports(path)}
        assert tops - OURS - set(sys.stdlib_module_names) <= DEPENDENCIES[package], path


def test_the_mesos_executor_stays_small() -> None:
    """Neither numpy nor gRPC nor protobuf are loaded by `python -m executor`, which runs on every agent."""
    pending, seen = [ROOT / EXECUTOR_ROOT], set()
    while pending:
        path = pending.pop()
        seen.add(path)
        for name in imports(path):
            assert name.split(".")[0] not in {"numpy", "scipy", "grpc", "google", "compute"}, (path, name)
            module = ROOT / (name.replace(".", "/") + ".py")
            if name.split(".")[0] in OURS and module.is_file() and module not in seen:
                pending.append(module)
    assert len(seen) > 5


def test_nothing_is_unpickled_but_the_job() -> None:
    """Data files, models and checkpoints never; the job only after its channel was authenticated."""
    loads = {
        str(path.relative_to(ROOT))
        for package in OURS
        for path in files(package)
        if any(name.split(".")[0] in {"pickle", "cloudpickle", "dill", "marshal", "shelve"} for name in imports(path))
    }
    assert loads == {"executor/job.py", "scheduler/shipping.py"}


def test_compute_loads_nothing_that_it_may_not_need() -> None:
    """The driver, every server and every worker import it: large libraries wait until a reader or a layer asks."""
    code = (
        "import sys, compute; "
        "print({m.split('.')[0] for m in sys.modules} & {'scipy', 'pyarrow', 'PIL', 'fsspec', 'grpc', 'torch'})"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "set()"
