"""What all plans of oneDNN's primitives for one program share: `PrimitiveEngine`."""

from __future__ import annotations

from ctypes import c_int

from compute.engines.blocked.weights import PackedWeights
from compute.engines.dnnl import Scratchpad
from compute.engines.libraries import load_openmp
from compute.engines.staged import StagedEngine
from compute.program import Program


class PrimitiveEngine(StagedEngine):
    """The base of `BlockedEngine`, as far as plans know it.

    Attributes:
        weights: the parameters in the kernels' layouts.
        scratchpad: what all primitives compute in.
    """

    declares_uses = True

    def __init__(self, program: Program, threads: int) -> None:
        super().__init__(program, threads)
        self._openmp = load_openmp()
        self.weights = PackedWeights()
        self.scratchpad = Scratchpad()

    def prepare(self) -> None:
        # oneDNN plans a primitive for as many threads as there are while it is made, and wants as many when it runs.
        self._openmp.omp_set_num_threads(c_int(self.threads))

    def parameters_changed(self) -> None:
        self.weights.version += 1
