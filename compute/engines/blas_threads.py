"""Keeps the BLAS inside numpy to the threads that were granted."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

_SETTERS = ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "openblas_set_num_threads")


def limit_numpy_threads(threads: int) -> bool:
    """Sets the threads of the OpenBLAS that numpy's wheel carries; False where numpy uses another BLAS.

    With another BLAS (a distribution's numpy) OPENBLAS_NUM_THREADS or MKL_NUM_THREADS, set before the process starts,
    must do.
    """
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            library = ctypes.CDLL(str(path))
            for name in _SETTERS:
                setter = getattr(library, name, None)
                if setter is not None:
                    setter(ctypes.c_int(threads))
                    return True
    return False
