"""A network with PyTorch's DistributedDataParallel over gloo: processes of 1 thread each, data in memory.

Written to be quick, since it is what Mesograd is measured against: no DataLoader, whole batches gathered and
normalized by vectorized tensor operations, gradients as bucket views, fused SGD, no broadcast of running statistics.

Prints one JSON line: images_per_s over all steps but the first ones, rss_mb (the peak of the largest process) and,
of whole epochs, test accuracy.
"""

import argparse
import contextlib
import gzip
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks import fashion_cifar
from benchmarks.compute import torch_networks

ROOT = Path(__file__).resolve().parents[1]
Samples = tuple[torch.Tensor, torch.Tensor]


def mnist(folder: str, train: bool) -> Samples:
    """uint8 images (n, 1, 28, 28) and int64 labels (n,)."""
    prefix = "train" if train else "t10k"
    with gzip.open(Path(folder) / f"{prefix}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), dtype=np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(Path(folder) / f"{prefix}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), dtype=np.uint8, offset=8).astype(np.int64)
    return torch.from_numpy(images.copy()), torch.from_numpy(labels)


def cifar10(folder: str, train: bool) -> Samples:
    """uint8 images (n, 3, 32, 32) and int64 labels (n,), of the binary version."""
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] if train else ["test_batch.bin"]
    parts = [np.fromfile(Path(folder) / name, dtype=np.uint8).reshape(-1, 3073) for name in names]
    records = np.concatenate(parts)
    images = np.ascontiguousarray(records[:, 1:]).reshape(-1, 3, 32, 32)
    return torch.from_numpy(images), torch.from_numpy(records[:, 0].astype(np.int64))


@dataclass(frozen=True)
class Training:
    """What is trained: the network, its data, and the mean and standard deviation of pixels between 0 and 1."""

    network: Callable[[], nn.Module]
    load: Callable[[str, bool], Samples]
    mean: float
    std: float


TRAININGS = {
    "lenet5": Training(torch_networks.lenet5, mnist, 0.2860, 0.3530),  # as examples/train_lenet.py
    "vgg_cifar10": Training(torch_networks.vgg_cifar10, cifar10, fashion_cifar.MEAN, fashion_cifar.STD),
}


def batches(samples: int, batch: int, epochs: int, steps: int) -> Iterator[torch.Tensor]:
    """Indices of each global batch: of so many epochs, or of so many full batches if `steps` is not 0."""
    epoch = 0
    while epoch < epochs or steps:
        for indices in torch.randperm(samples, generator=torch.Generator().manual_seed(epoch)).split(batch):
            if steps and len(indices) < batch:
                continue
            yield indices
            if steps and not (steps := steps - 1):
                return
        epoch += 1


def train(rank: int, world: int, port: int, options: argparse.Namespace) -> None:
    """One process of the job."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    training = TRAININGS[options.network]
    layout = torch.channels_last if options.variant == "channels_last" else torch.contiguous_format
    model = DistributedDataParallel(
        training.network().to(memory_format=layout), gradient_as_bucket_view=True, forward_sync_buffers=False
    )
    optimizer = torch.optim.SGD(
        model.parameters(), lr=options.learning_rate, momentum=0.9, weight_decay=options.weight_decay, fused=True
    )
    criterion = nn.NLLLoss()

    def inputs(images: torch.Tensor) -> torch.Tensor:
        pixels = images.to(torch.float32).mul_(1 / (255 * training.std)).sub_(training.mean / training.std)
        return pixels.contiguous(memory_format=layout)

    def mixed() -> contextlib.AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16) if options.precision == "bf16" else contextlib.nullcontext()

    images, labels = training.load(options.folder, True)
    begun, counted = 0.0, 0
    order = batches(len(images), options.batch_size, options.epochs, options.steps)
    for step, batch in enumerate(order, start=1):
        mine = batch.chunk(world)[rank]
        optimizer.zero_grad()
        with mixed():
            output = model(inputs(images[mine]))
        criterion(output.float(), labels[mine]).backward()
        optimizer.step()
        if step == options.warm_up:
            begun = time.monotonic()
        elif step > options.warm_up:
            counted += len(batch)
    figures = {"images_per_s": counted / (time.monotonic() - begun)}
    rss_mb = torch.tensor([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024])
    dist.all_reduce(rss_mb, dist.ReduceOp.MAX)
    figures["rss_mb"] = rss_mb.item()
    if rank == 0 and not options.steps:
        images, labels = training.load(options.folder, False)
        model.eval()
        with torch.inference_mode():
            figures["accuracy"] = (model.module(inputs(images)).argmax(1) == labels).double().mean().item()
    if rank == 0:
        print(json.dumps(figures))
    dist.destroy_process_group()


def run(arguments: list[str], environment: dict[str, str], timeout_s: float = 900.0) -> dict[str, float]:
    """The figures of one job, in processes of its own.

    Args:
        arguments: of this module.
        environment: over the present one.
    """
    output = subprocess.run(
        [sys.executable, "-m", "benchmarks.ddp", *arguments], env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=timeout_s,
    ).stdout  # fmt: skip
    return dict(json.loads(output.splitlines()[-1]))


def main() -> None:
    """Runs the job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=sorted(TRAININGS))
    parser.add_argument("--folder", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0, help="instead of epochs")
    parser.add_argument("--warm-up", type=int, required=True, help="steps that are not counted")
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--variant", choices=["eager", "channels_last"], default="eager")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(train, args=(options.processes, port, options), nprocs=options.processes)


if __name__ == "__main__":
    main()
