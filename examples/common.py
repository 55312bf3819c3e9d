"""The flags that all training examples share, named as BigDL's, and what follows from them."""

import argparse
from typing import Any

from compute import trigger
from scheduler import TrainingJob


def parser(
    description: str, batch_size: int, max_epoch: int, learning_rate: float, weight_decay: float = 0.0
) -> argparse.ArgumentParser:
    """An ArgumentParser with the common flags and these defaults."""
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    flags.add_argument("-f", "--folder", required=True, help="where the data are: a path or fsspec URL")
    flags.add_argument("-b", "--batch-size", "--batchSize", type=int, default=batch_size)
    flags.add_argument("-e", "--max-epoch", "--maxEpoch", type=int, default=max_epoch)
    flags.add_argument("-l", "--learning-rate", "--learningRate", type=float, default=learning_rate)
    flags.add_argument("--weight-decay", "--weightDecay", type=float, default=weight_decay)
    flags.add_argument("--model", default="", metavar="FILE", help="saved model to begin with")
    flags.add_argument("--checkpoint", metavar="FOLDER", help="write a checkpoint after each epoch; see also --resume")
    flags.add_argument("--summary", metavar="FOLDER", help="write TensorBoard event files")
    flags.add_argument("--micro-batches", type=int, default=8, help="parts of a batch, each computed by one worker")
    flags.add_argument("-i", "--max-iteration", "--maxIteration", type=int, help="end after so many steps at the most")
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--engine", choices=["onednn", "mkl", "numpy"], default="onednn")
    flags.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    return flags


def end_when(args: argparse.Namespace) -> trigger.Trigger:
    """When the flags say that training ends."""
    epochs = trigger.max_epoch(args.max_epoch)
    return trigger.or_(epochs, trigger.max_iteration(args.max_iteration)) if args.max_iteration else epochs


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of TrainingJob that the flags give."""
    return {
        "batch_size": args.batch_size,
        "end_when": end_when(args),
        "micro_batches": args.micro_batches,
        "seed": args.seed,
        "engine": args.engine,
        "precision": args.precision,
        "weights": args.model,
    }


def run(job: TrainingJob, args: argparse.Namespace) -> None:
    """Runs the job with the checkpoints and summaries that the flags ask for."""
    if args.checkpoint:
        job.checkpoint(args.checkpoint, trigger.every_epoch())
    if args.summary:
        job.summary(args.summary)
    job.run()
