"""One side of a comparison in a process of its own: makes a training step, then runs some whenever it is told to.

Standard input: "run N" or "roofline" lines; standard output: one JSON line when ready and one for each of these.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks.compute.networks import NETWORKS, Network

if TYPE_CHECKING:
    from benchmarks.compute.roofline import Roofline

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4


def ours(network: Network, options: argparse.Namespace) -> tuple[Callable[[], float], Callable[[], Roofline]]:
    """Mesograd's step: forward, backward, SGD with momentum and weight decay; and what measures its limit.

    With --no-update it is what a worker computes: servers do the rest.
    """
    import compute
    from compute import nn, optim

    model = network.ours()
    criterion = nn.CrossEntropyLoss() if network.scores else nn.NLLLoss()
    program = compute.compile(
        model, criterion, network.inputs, options.engine, options.threads, precision=options.precision
    )
    program.parameters[:] = compute.initial_parameters(model, network.inputs, 1)
    update = optim.ParameterUpdate(
        compute.parameter_layout(model, network.inputs),
        optim.SGD(LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
    )
    x, target = network.batch(options.batch)
    step = 0

    def run() -> float:
        nonlocal step
        step += 1
        program.parameters_changed()
        loss = program.forward_backward(x, target, 1.0 / options.batch, (1, step, 0))
        if options.update:
            update.step(program.parameters, program.gradients, step, 1)
        return loss / options.batch

    def limit() -> Roofline:
        from benchmarks.compute.roofline import measure

        def apply() -> None:
            update.step(program.parameters, program.gradients, 2, 1)

        return measure(program, x, target, apply, options.threads)

    return run, limit


def theirs(network: Network, options: argparse.Namespace) -> Callable[[], float]:
    """PyTorch's step, as its documentation advises for the variant."""
    import contextlib

    import torch

    from benchmarks.compute import torch_networks

    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    model = getattr(torch_networks, network.theirs)()
    x, target = (torch.from_numpy(array) for array in network.batch(options.batch))
    if options.variant == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True
    )
    loss_of = torch.nn.functional.cross_entropy if network.scores else torch.nn.functional.nll_loss
    if options.variant == "compile":
        model = torch.compile(model)

    def run() -> float:
        optimizer.zero_grad(set_to_none=True)
        mixed = torch.autocast("cpu", torch.bfloat16) if options.precision == "bf16" else contextlib.nullcontext()
        with mixed:
            output = model(x)
        loss = loss_of(output.float().reshape(-1, output.shape[-1]), target.reshape(-1))
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return run


def main() -> None:
    """Makes the step, then obeys."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["ours", "theirs"])
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--engine", default="onednn")
    parser.add_argument("--variant", choices=["eager", "channels_last", "compile"], default="eager")
    parser.add_argument("--no-update", action="store_false", dest="update", help="of Mesograd's parameters")
    options = parser.parse_args()
    network = NETWORKS[options.network]
    run, limit = ours(network, options) if options.side == "ours" else (theirs(network, options), None)
    losses = [run(), run()]
    print(json.dumps({"losses": losses}), flush=True)
    for line in sys.stdin:
        if line.startswith("roofline") and limit is not None:
            found = limit()
            print(json.dumps({**asdict(found), "limit_s": found.limit_s}), flush=True)
            continue
        seconds = []
        for _ in range(int(line.split()[1])):
            begun = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begun)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mb": peak_mb}), flush=True)


if __name__ == "__main__":
    main()
