"""Which faults happen when: a pure function of the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: What can happen, and how often beside the others.
KINDS = {
    "kill leading master": 2,
    "stop leading master": 1,
    "kill standing-by master": 1,
    "kill agent": 2,
    "kill agent with executors": 1,
    "stop agent": 1,
    "kill executor": 2,
    "stop executor": 1,
    "kill worker": 4,
    "stop worker": 3,
    "kill server": 2,
    "stop server": 2,
    "kill zookeeper": 1,
    "kill driver": 2,
    "cut off server": 2,
    "lose packets of server": 2,
    "cut off master": 1,
}
NETWORK = frozenset({"cut off server", "lose packets of server", "cut off master"})
#: Whatever else is drawn, these come first, so that a short run shows the most.
ALWAYS = ("kill worker", "kill leading master", "kill server", "kill agent", "kill driver")

FIRST_S = 3.0
GAP_S = (2.0, 12.0)


@dataclass(frozen=True)
class Fault:
    """At `at_s` of the run, `kind` happens to one of its possible victims, for `lasts_s` where it lasts."""

    at_s: float
    kind: str
    choice: float  #: in [0, 1): which of the victims there are then
    lasts_s: float  #: until what was killed is started again, what was stopped goes on, ...


def draw(seed: int, length_s: float, longest_s: float = 30.0, network: bool = True) -> list[Fault]:
    """The faults of a run.

    Args:
        seed: the same seed, the same faults.
        length_s: none begins later.
        longest_s: none lasts longer.
        network: whether traffic can be dropped.
    """
    random_ = random.Random(seed)
    kinds = {kind: weight for kind, weight in KINDS.items() if network or kind not in NETWORK}
    first = list(ALWAYS)
    random_.shuffle(first)
    faults: list[Fault] = []
    at_s = FIRST_S
    while at_s < length_s:
        kind = first.pop() if first else random_.choices(list(kinds), list(kinds.values()))[0]
        faults.append(Fault(at_s, kind, random_.random(), random_.uniform(1.0, longest_s)))
        at_s += random_.uniform(*GAP_S)
    return faults
