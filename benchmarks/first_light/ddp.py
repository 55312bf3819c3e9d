"""LeNet-5 with PyTorch's DistributedDataParallel over gloo: 2 processes, 1 thread each, data in memory.

Written to be quick, since it is what Mesograd is measured against: no DataLoader, whole batches gathered and
normalized by vectorized tensor operations, gradients as bucket views, fused SGD.

Prints one JSON line: images_per_s over all epochs but the first 20 steps, rss_mb of the largest process, accuracy.
"""

import argparse
import gzip
import json
import os
import socket
import time
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

WARM_UP_STEPS = 20
MEAN, STD = 0.2860, 0.3530  # as examples/train_lenet.py


def lenet5() -> nn.Sequential:
    """As compute.models.lenet5."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 12, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(192, 100), nn.Tanh(), nn.Linear(100, 10), nn.LogSoftmax(1),
    )  # fmt: skip


def load(folder: str, prefix: str) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 images (n, 1, 28, 28) and int64 labels (n,)."""
    with gzip.open(Path(folder) / f"{prefix}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), dtype=np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(Path(folder) / f"{prefix}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), dtype=np.uint8, offset=8).astype(np.int64)
    return torch.from_numpy(images.copy()), torch.from_numpy(labels)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 to normalized float32."""
    return images.to(torch.float32).mul_(1 / (255 * STD)).sub_(MEAN / STD)


def train(rank: int, world: int, port: int, options: argparse.Namespace) -> None:
    """One process of the job."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    images, labels = load(options.folder, "train")
    model = DistributedDataParallel(lenet5(), gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=options.learning_rate, momentum=0.9, weight_decay=options.weight_decay, fused=True
    )
    criterion = nn.NLLLoss()
    begun, step, counted = 0.0, 0, 0
    for epoch in range(options.epochs):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(options.batch_size):
            mine = batch.chunk(world)[rank]
            optimizer.zero_grad()
            loss = criterion(model(normalize(images[mine])), labels[mine])
            loss.backward()
            optimizer.step()
            step += 1
            if step == WARM_UP_STEPS:
                begun = time.monotonic()
            elif step > WARM_UP_STEPS:
                counted += len(batch)
    seconds = time.monotonic() - begun
    rss_mb = torch.tensor([psutil.Process().memory_info().rss / 2**20])
    dist.all_reduce(rss_mb, dist.ReduceOp.MAX)
    if rank == 0:
        images, labels = load(options.folder, "t10k")
        with torch.inference_mode():
            accuracy = (model.module(normalize(images)).argmax(1) == labels).double().mean().item()
        print(json.dumps({"images_per_s": counted / seconds, "rss_mb": rss_mb.item(), "accuracy": accuracy}))
    dist.destroy_process_group()


def main() -> None:
    """Runs the job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(train, args=(options.processes, port, options), nprocs=options.processes)


if __name__ == "__main__":
    main()
