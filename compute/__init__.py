"""The network library: layers, engines, optimizers, data.

Importing it loads numpy and nothing of MKL or oneDNN; an engine's libraries are loaded by `compile`.
"""

import os

# numpy's BLAS starts a thread per core when it is loaded, which a driver has no use for and a worker must not have.
# An engine that wants threads asks for them when it compiles.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from compute import checkpoint, data, models, nn, optim, schedule, trigger
from compute.errors import InputError
from compute.layout import ParameterInfo, fingerprint, initial_parameters, parameter_layout
from compute.model_file import SavedModel, load_model, load_parameters, save_model
from compute.predictions import read_predictions
from compute.predictor import Predictor
from compute.program import Program, compile
from compute.spec import TensorSpec
from compute.torch_weights import parameters_from_torch
from compute.training import TrainingSpec, Validation
from compute.training_state import TrainingState

__all__ = [
    "InputError",
    "ParameterInfo",
    "Predictor",
    "Program",
    "SavedModel",
    "TensorSpec",
    "TrainingSpec",
    "TrainingState",
    "Validation",
    "checkpoint",
    "compile",
    "data",
    "fingerprint",
    "initial_parameters",
    "load_model",
    "load_parameters",
    "models",
    "nn",
    "optim",
    "parameter_layout",
    "parameters_from_torch",
    "read_predictions",
    "save_model",
    "schedule",
    "trigger",
]
