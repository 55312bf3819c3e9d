"""What is packed here must unpack in a process that has never seen the script."""

import subprocess
import sys
import textwrap

import pytest

PACK = """
import pickle, sys
import helper_module, helper_package.inner
from compute import nn

class Own:
    def value(self):
        return helper_module.twice(20) + helper_package.inner.TWO

def fails():
    raise ValueError("on purpose")

from scheduler import shipping
with open(sys.argv[1], "wb") as out:
    pickle.dump((shipping.dump([Own(), fails, nn.ReLU()]), shipping.sources()), out)
print(sorted(shipping.user_modules()))
"""

UNPACK = """
import linecache, pickle, sys, traceback
with open(sys.argv[1], "rb") as f:
    spec, sources = pickle.load(f)
for name, text in sources.items():
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
own, fails, relu = pickle.loads(spec)
print(own.value(), type(relu).__module__)
try:
    fails()
except ValueError:
    traceback.print_exc(file=sys.stdout)
"""


def python(*arguments, cwd):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_the_script_and_its_modules_travel_by_value(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))
    (tmp_path / "project" / "helper_package").mkdir(parents=True)
    project = tmp_path / "project"
    (project / "helper_module.py").write_text("def twice(x):\n    return 2 * x\n")
    (project / "helper_package" / "__init__.py").write_text("")
    (project / "helper_package" / "inner.py").write_text("TWO = 2\n")
    (project / "train.py").write_text(PACK)
    packed = python(project / "train.py", tmp_path / "job", cwd=project)
    assert packed.strip() == "['helper_module', 'helper_package', 'helper_package.inner']"
    (project).rename(tmp_path / "gone")
    out = python("-c", UNPACK, tmp_path / "job", cwd=tmp_path)
    assert out.startswith("42 compute.nn.activation\n")
    assert 'raise ValueError("on purpose")' in out, "the line is shown though the file is gone"


def test_what_cannot_travel_is_a_usage_error(tmp_path):
    script = """
        import threading
        from scheduler import shipping
        from scheduler.outcome import UsageError
        try:
            shipping.dump(threading.Lock())
        except UsageError as error:
            print(error)
    """
    (tmp_path / "train.py").write_text(textwrap.dedent(script))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))
        out = python(tmp_path / "train.py", cwd=tmp_path)
    assert "cannot be sent to workers" in out
    assert "lock" in out


def test_installed_packages_beside_the_script_are_not_the_users(tmp_path, monkeypatch):
    import scheduler.shipping as shipping

    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/anything/script.py", raising=False)
    assert shipping.user_modules() == {}
    root = sys.prefix.rsplit("/", 1)[0]
    monkeypatch.setattr(sys.modules["__main__"], "__file__", f"{root}/script.py", raising=False)
    assert not {"numpy", "grpc", "json", "scheduler", "compute"} & shipping.user_modules().keys()
