"""Trains the LSTM and the Transformer language model with Mesograd and with PyTorch and compares their perplexities.

Both begin with the same weights and have the same loss, optimizer, schedule, clipping and batches of the same size; the
order of the windows and the dropout differ. Mesograd trains on an embedded Mesos with two workers, PyTorch in one
process. FOLDER is what examples/prepare_text.py wrote; needs the `test` extra (torch).
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = {"lstm": 35, "transformer": 64}
WARM_UP = {"lstm": 100, "transformer": 400}  # steps, as in the example scripts
SCRIPTS = {"lstm": "examples/train_lstm_lm.py", "transformer": "examples/train_transformer_lm.py"}


def mesograd(network: str, options: argparse.Namespace, precision: str, seed: int) -> float:
    """Perplexity of the validation set at the end."""
    output = run(
        ["-m", "scheduler.cli", "run", "--master", "local[2]", "--workers", "2", SCRIPTS[network], "-f", options.folder,
         "-b", str(options.batch_size), "-e", str(options.epochs), "-l", str(options.learning_rate),
         "--hidden-size", str(options.size), "--num-layers", str(options.layers), "--dropout", str(options.dropout),
         "--num-steps", str(LENGTHS[network]), "--micro-batches", "2", "--seed", str(seed), "--precision", precision],
    )  # fmt: skip
    return float(re.findall(r"^validation at step .*?perplexity:? ([0-9.]+)", output, re.MULTILINE | re.IGNORECASE)[-1])


def pytorch(network: str, options: argparse.Namespace, seed: int) -> float:
    """Likewise."""
    output = run(
        ["-m", "benchmarks.language_models.torch_twin", network, "-f", options.folder, "--size", str(options.size),
         "--layers", str(options.layers), "--dropout", str(options.dropout), "--length", str(LENGTHS[network]),
         "--batch-size", str(options.batch_size), "--epochs", str(options.epochs),
         "--learning-rate", str(options.learning_rate), "--warm-up", str(WARM_UP[network]), "--seed", str(seed)],
    )  # fmt: skip
    return float(json.loads(output.splitlines()[-1])["perplexity"])


def run(command: list[str]) -> str:
    """What Python prints."""
    ended = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{ended.stdout}\n{ended.stderr}")
    return ended.stdout


def main() -> None:
    """Runs all in turn and prints a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language_models", description=__doc__)
    parser.add_argument("-f", "--folder", required=True)
    parser.add_argument("--networks", nargs="+", choices=list(LENGTHS), default=list(LENGTHS))
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--size", type=int, default=128, help="of the embedding and the layers")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=0.002)
    options = parser.parse_args()
    options.folder = str(Path(options.folder).resolve())
    print("| network | " + " | ".join(f"Mesograd {p}" for p in options.precisions) + " | PyTorch fp32 |")
    print("| --- |" + " --- |" * (len(options.precisions) + 1))
    for network in options.networks:
        results: dict[str, list[float]] = {}
        for seed in options.seeds:
            for precision in options.precisions:
                results.setdefault(precision, []).append(mesograd(network, options, precision, seed))
            results.setdefault("PyTorch", []).append(pytorch(network, options, seed))
            print(f"seed {seed}: {results}", file=sys.stderr, flush=True)
        cells = [f"{statistics.median(v):.2f} ({min(v):.2f} - {max(v):.2f})" for v in results.values()]
        print(f"| {network} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
