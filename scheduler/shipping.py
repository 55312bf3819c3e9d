"""Packs a job for its journey: the spec with the user's own code by value, and the sources for readable tracebacks.

The user's code is the script (`__main__`) and every module loaded from the script's directory; executors have never
seen either. Everything else (numpy, Mesograd) is named, not carried.
"""

from __future__ import annotations

import contextlib
import os
import site
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle

from scheduler.outcome import UsageError

OWN_PACKAGES = frozenset({"scheduler", "executor", "proto", "compute"})
MAX_SOURCE_BYTES = 2**20


def user_modules() -> dict[str, types.ModuleType]:
    """Name -> module, of all loaded modules that executors do not have."""
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    if not script:
        return {}
    directory = os.path.join(os.path.dirname(os.path.realpath(script)), "")
    installed = _installed_directories()
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or name.partition(".")[0] in OWN_PACKAGES or module is main:
            continue
        path = os.path.realpath(file)
        if path.startswith(directory) and not any(path.startswith(place) for place in installed):
            found[name] = module
    return found


def _installed_directories() -> list[str]:
    """Where installed packages live, each with a slash at the end; a virtual environment may lie beside the script."""
    places = {sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    places.update(site.getsitepackages())
    return [os.path.join(os.path.realpath(place), "") for place in places]


def dump(spec: Any) -> bytes:
    """Pickles `spec` with the user's code by value. Raises UsageError if something in it cannot travel."""
    with _by_value(user_modules()):
        try:
            return bytes(cloudpickle.dumps(spec))
        except (TypeError, AttributeError, ValueError, RecursionError, NotImplementedError) as error:
            raise UsageError(f"the job cannot be sent to workers: {error}") from error
        except cloudpickle.pickle.PicklingError as error:
            raise UsageError(f"the job cannot be sent to workers: {error}") from error


@contextlib.contextmanager
def _by_value(modules: Mapping[str, types.ModuleType]) -> Iterator[None]:
    registered = []
    try:
        for module in modules.values():
            if module.__name__ in sys.modules and module.__name__ not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)
                registered.append(module)
        yield
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


def sources() -> dict[str, str]:
    """File name as tracebacks name it -> text, of the script and the modules beside it."""
    texts = {}
    for module in [sys.modules["__main__"], *user_modules().values()]:
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py"):
            continue
        try:
            if os.path.getsize(file) <= MAX_SOURCE_BYTES:
                with open(file, encoding="utf-8", errors="replace") as text:
                    texts[file] = text.read()
        except OSError:
            continue  # a traceback without the line is still a traceback
    return texts
