"""Which optimizer updates which weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compute.errors import InputError
from compute.layout import ParameterInfo
from compute.optim.optimizer import Optimizer

Optimizers = Optimizer | Mapping[str, Optimizer]
"""One for all weights, or one per name prefix: a layer's path such as "features.conv_0", a weight's name; "" for the
rest. A weight belongs to the longest prefix that fits it. BigDL's setOptimMethods."""


def by_prefix(optimizers: Optimizers) -> dict[str, Optimizer]:
    """The optimizers by prefix, in the order of the prefixes.

    Raises:
        InputError: it is neither an optimizer nor a mapping of some.
    """
    if isinstance(optimizers, Optimizer):
        return {"": optimizers}
    if not isinstance(optimizers, Mapping) or not optimizers:
        raise InputError(
            "optimizer must be an optimizer such as optim.SGD(learning_rate=0.1), or a mapping from layers' names to "
            f"optimizers, got {optimizers!r}"
        )
    for prefix, optimizer in optimizers.items():
        if not isinstance(prefix, str) or not isinstance(optimizer, Optimizer):
            raise InputError(f"optimizer: {prefix!r}: {optimizer!r} is not a layer's name and its optimizer")
    return {prefix: optimizers[prefix] for prefix in sorted(optimizers)}


def assign(layout: Sequence[ParameterInfo], prefixes: Sequence[str]) -> list[int]:
    """For each parameter the index of the longest prefix that fits its name; -1 for statistics and frozen weights.

    Raises:
        InputError: a weight has no optimizer, or a prefix no weight.
    """
    longest_first = sorted(range(len(prefixes)), key=lambda index: -len(prefixes[index]))
    found, used = [], set()
    for info in layout:
        index = next((i for i in longest_first if _fits(prefixes[i], info.name)), -1)
        used.add(index)
        if info.kind != "weight" or info.frozen:
            index = -1
        elif index < 0:
            raise InputError(
                f'optimizer: no prefix fits the weight {info.name}; give the rest an optimizer under "", '
                f"or name its layer (layers with weights: {_layers(layout)})"
            )
        found.append(index)
    for index, prefix in enumerate(prefixes):
        if prefix and index not in used:
            raise InputError(
                f"optimizer: no weight of its own for the prefix {prefix!r} (layers with weights: {_layers(layout)})"
            )
    return found


def _fits(prefix: str, name: str) -> bool:
    return not prefix or name == prefix or name.startswith(prefix + ".")


def _layers(layout: Sequence[ParameterInfo]) -> str:
    names = dict.fromkeys(info.name.rpartition(".")[0] or info.name for info in layout if info.kind == "weight")
    shown = list(names)[:20]
    return ", ".join(shown) + (" ..." if len(names) > len(shown) else "")
