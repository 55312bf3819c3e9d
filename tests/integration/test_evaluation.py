"""Predictions and metrics of a saved network, computed by executors on real Mesos."""

from pathlib import Path

import numpy as np
import pytest

import compute
from compute import Predictor, data, models, optim
from tests.data_files import FASHION_MNIST
from tests.integration.runs import leftovers, run_to_end

pytestmark = pytest.mark.cluster

SCRIPT = """
import sys
from compute import data, models, optim
from scheduler import EvaluationJob

folder, weights, place = sys.argv[1:]
test = data.mnist(folder, train=False) >> data.normalize(0.286, 0.353)
job = EvaluationJob(models.lenet5(), weights, test, [optim.Top1Accuracy(), optim.Loss()], place, batch_size=128)
print("result", job.run().metrics["Top1Accuracy"])
"""


def test_executors_predict_what_a_predictor_here_does(tmp_path: Path) -> None:
    folder = FASHION_MNIST
    parameters = compute.initial_parameters(models.lenet5(), (1, 28, 28), 7)
    weights, place, script = tmp_path / "lenet.mesograd", tmp_path / "predictions", tmp_path / "evaluate.py"
    compute.save_model(weights, models.lenet5(), (1, 28, 28), parameters)
    script.write_text(SCRIPT)
    run = run_to_end(["--master", "local[2]", str(script), str(folder), str(weights), str(place)])
    assert run.process.returncode == 0, run.errors
    test = data.mnist(folder, train=False) >> data.normalize(0.286, 0.353)
    here = Predictor.of(compute.load_model(weights))
    expected = here.evaluate(test, [optim.Top1Accuracy()], batch_size=128)
    assert f"result {expected['Top1Accuracy']}" in run.lines
    found = compute.read_predictions(place)
    assert found.shape == (10000, 10)
    assert np.asarray(found).tobytes() == here.predict(test, batch_size=128).tobytes()
    assert not leftovers()


def test_weights_of_another_network_are_refused_at_once(tmp_path: Path) -> None:
    weights, script = tmp_path / "lenet.mesograd", tmp_path / "evaluate.py"
    model = models.lenet5(11)
    compute.save_model(weights, model, (1, 28, 28), compute.initial_parameters(model, (1, 28, 28), 7))
    script.write_text(SCRIPT)
    run = run_to_end(["--master", "local[1]", str(script), str(FASHION_MNIST), str(weights), str(tmp_path / "p")])
    assert run.process.returncode == 2
    assert run.errors == [
        f"mesograd: {weights} is of another model: it has fc2.weight (11, 100) where this one has fc2.weight (10, 100)"
    ]
