"""Finds and loads the shared libraries that the distributions mkl, intel-openmp and onednn-cpu-iomp install."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from compute.errors import InputError


@cache
def load(distribution: str, file_name: str) -> ctypes.CDLL:
    """The library `file_name`, from the environment's lib folder or from where `distribution` put it.

    It is loaded with its symbols visible to libraries loaded later: those that need it find it without a search path.

    Raises:
        InputError: it is not installed, or a library that it needs is not loaded.
    """
    candidates = [Path(sys.prefix) / "lib" / file_name]
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        files = []
    candidates += [Path(str(file.locate())) for file in files if file.name == file_name]
    for path in candidates:
        if path.is_file():
            try:
                return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                raise InputError(f"cannot load {path} ({error}); reinstall {distribution}") from None
    raise InputError(f"{file_name} is not installed; install it with: pip install {distribution}")


@cache
def load_openmp() -> ctypes.CDLL:
    """Intel's OpenMP runtime, which MKL and oneDNN share."""
    return load("intel-openmp", "libiomp5.so")


def openmp_is_first() -> bool:
    """Whether Intel's OpenMP runtime answers for omp_ functions in this process, as opposed to one loaded before it.

    MKL's threading layer takes whichever was first. With another one (PyTorch brings GNU's) it forks threads through
    Intel's runtime and asks the other for their numbers: its results are then wrong, without a word.
    """
    name = "omp_get_thread_num"
    first, ours = (ctypes.cast(getattr(lib, name), ctypes.c_void_p).value for lib in (ctypes.CDLL(None), load_openmp()))
    return first == ours


@cache
def load_onednn() -> ctypes.CDLL:
    """oneDNN's CPU library with OpenMP threads."""
    load_openmp()
    for name in ("libintlc.so.5", "libirng.so", "libimf.so", "libsvml.so"):
        load("intel-cmplr-lib-rt", name)
    return load("onednn-cpu-iomp", "libdnnl.so.3")


@cache
def load_mkl() -> ctypes.CDLL:
    """MKL's single library, bound to 32-bit integers and Intel's OpenMP."""
    load_openmp()
    return load("mkl", "libmkl_rt.so.2")
