"""Mesos resources as values: exact scalars, port ranges, reservations kept apart.

Mesos rounds every scalar to three decimals and computes in fixed point (`include/mesos/values.hpp`), so the value here
is an integer count of thousandths. Resources of one name may carry different *traits* (role, reservations, allocation):
they must come back to the master as they were offered, so every trait set has its own bin.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

#: Inclusive ranges, sorted, neither overlapping nor adjacent.
Ranges = tuple[tuple[int, int], ...]
#: (name, traits as canonical JSON). `_traits` says what of them matters here.
Bin = tuple[str, str]

_VALUE_FIELDS = ("name", "type", "scalar", "ranges", "set")


class ResourceError(ValueError):
    """A Mesos resource that does not make sense, or a subtraction of what is not there."""


@dataclass(frozen=True)
class Need:
    """What one task or executor asks of an agent. cpus and mem in Mesos' units (cores, MB)."""

    cpus: float
    mem_mb: float
    ports: int = 0

    def __add__(self, other: Need) -> Need:
        return Need(self.cpus + other.cpus, self.mem_mb + other.mem_mb, self.ports + other.ports)

    def __str__(self) -> str:
        text = f"{self.cpus:.10g} cpus, {self.mem_mb:.10g} MB"
        return f"{text}, {self.ports} port{'s' if self.ports > 1 else ''}" if self.ports else text


def to_milli(value: float) -> int:
    """Thousandths, rounded as Mesos does."""
    return round(value * 1000)


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sorts and coalesces inclusive ranges. Raises ResourceError for a range that ends before it begins."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if end < begin:
            raise ResourceError(f"range {begin}-{end} ends before it begins")
        if merged and begin <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return tuple(merged)


def subtract_ranges(whole: Ranges, part: Ranges) -> Ranges:
    """`whole` without `part`. Raises ResourceError if `part` is not inside `whole`."""
    left: list[tuple[int, int]] = []
    pending = list(part)
    for begin, end in whole:
        while pending and begin <= pending[0][0] <= end:
            cut_begin, cut_end = pending.pop(0)
            if cut_end > end:
                raise ResourceError(f"ports {cut_begin}-{cut_end} are not in {whole}")
            if cut_begin > begin:
                left.append((begin, cut_begin - 1))
            begin = cut_end + 1
        if begin <= end:
            left.append((begin, end))
    if pending:
        raise ResourceError(f"ports {pending} are not in {whole}")
    return tuple(left)


@dataclass(frozen=True)
class Resources:
    """An immutable bag of resources. Empty bins are never kept, so that equal contents compare equal."""

    scalars: Mapping[Bin, int]
    ranges: Mapping[Bin, Ranges]

    @staticmethod
    def parse(items: Iterable[Mapping[str, Any]]) -> Resources:
        """From Mesos' JSON. What Mesograd never uses is left out: shared and disk resources, sets, revocable memory.

        Raises ResourceError for a malformed item.
        """
        scalars: dict[Bin, int] = {}
        ranges: dict[Bin, Ranges] = {}
        for item in items:
            if "shared" in item or "disk" in item or "provider_id" in item:
                continue
            if "revocable" in item and item.get("name") != "cpus":
                continue  # memory that is taken away is a dead task; only cpus are worth the risk
            try:
                name, kind = item["name"], item["type"]
                key = (name, json.dumps({k: v for k, v in item.items() if k not in _VALUE_FIELDS}, sort_keys=True))
                if kind == "SCALAR":
                    scalars[key] = scalars.get(key, 0) + to_milli(item["scalar"]["value"])
                elif kind == "RANGES":
                    parsed = [(int(r["begin"]), int(r["end"])) for r in item["ranges"].get("range", ())]
                    ranges[key] = merge_ranges([*ranges.get(key, ()), *parsed])
            except (KeyError, TypeError) as error:
                raise ResourceError(f"malformed resource {item!r}: {error!r}") from error
        return Resources(scalars, ranges)._pruned()

    def to_mesos(self) -> list[dict[str, Any]]:
        """As Mesos' JSON, in a stable order."""
        items = []
        for (name, traits), milli in sorted(self.scalars.items()):
            items.append({"name": name, "type": "SCALAR", "scalar": {"value": milli / 1000}, **json.loads(traits)})
        for (name, traits), ranges in sorted(self.ranges.items()):
            value = {"range": [{"begin": begin, "end": end} for begin, end in ranges]}
            items.append({"name": name, "type": "RANGES", "ranges": value, **json.loads(traits)})
        return items

    def milli(self, name: str, revocable: bool = False) -> int:
        """Thousandths of scalar `name`, over all traits; of the revocable part, or of all that is not revocable."""
        return sum(
            value
            for (bin_name, traits), value in self.scalars.items()
            if bin_name == name and _traits(traits).revocable == revocable
        )

    @cached_property
    def _cpus_milli(self) -> int:
        return self.milli("cpus")

    @cached_property
    def _mem_milli(self) -> int:
        return self.milli("mem")

    @property
    def cpus(self) -> float:
        return self._cpus_milli / 1000

    @property
    def revocable_cpus(self) -> float:
        return self.milli("cpus", revocable=True) / 1000

    @property
    def mem_mb(self) -> float:
        return self._mem_milli / 1000

    @property
    def ports(self) -> list[int]:
        """All ports, ascending. Meant for what was taken; an offer has thousands."""
        return sorted(
            p for (name, _), r in self.ranges.items() if name == "ports" for b, e in r for p in range(b, e + 1)
        )

    @cached_property
    def port_count(self) -> int:
        return sum(e - b + 1 for (name, _), r in self.ranges.items() if name == "ports" for b, e in r)

    def fits(self, need: Need, revocable: bool = False) -> bool:
        """`revocable`: its cpus are to be revocable ones."""
        cpus = self.milli("cpus", revocable=True) if revocable else self._cpus_milli
        return (
            cpus >= to_milli(need.cpus) and self._mem_milli >= to_milli(need.mem_mb) and self.port_count >= need.ports
        )

    def take(self, need: Need, revocable: bool = False) -> tuple[Resources, Resources] | None:
        """(taken, left) with taken + left == self, or None if it does not fit. Reserved resources are taken first.

        A task and its executor may not have both revocable and other resources of one name (Mesos' documentation,
        "Oversubscription"); so all cpus taken are revocable, or none.
        """
        if not self.fits(need, revocable):
            return None
        scalars: dict[Bin, int] = {}
        ranges: dict[Bin, Ranges] = {}
        for name, wanted in (("cpus", to_milli(need.cpus)), ("mem", to_milli(need.mem_mb))):
            for key in self._bins(self.scalars, name):
                if _traits(key[1]).revocable != (revocable and name == "cpus"):
                    continue
                amount = min(wanted, self.scalars[key])
                if amount:
                    scalars[key] = amount
                    wanted -= amount
        wanted = need.ports
        for key in self._bins(self.ranges, "ports"):
            for begin, end in self.ranges[key]:
                amount = min(wanted, end - begin + 1)
                if amount:
                    ranges[key] = merge_ranges([*ranges.get(key, ()), (begin, begin + amount - 1)])
                    wanted -= amount
        taken = Resources(scalars, ranges)
        return taken, self - taken

    @staticmethod
    def _bins(values: Mapping[Bin, Any], name: str) -> list[Bin]:
        return sorted((key for key in values if key[0] == name), key=lambda key: (not _traits(key[1]).reserved, key[1]))

    def __add__(self, other: Resources) -> Resources:
        """Raises ResourceError if both hold the same port."""
        scalars = dict(self.scalars)
        for key, value in other.scalars.items():
            scalars[key] = scalars.get(key, 0) + value
        ranges = dict(self.ranges)
        for key, theirs in other.ranges.items():
            ours = ranges.get(key, ())
            merged = merge_ranges([*ours, *theirs])
            if _size(merged) != _size(ours) + _size(theirs):
                raise ResourceError(f"{key[0]} {ours} and {theirs} overlap")
            ranges[key] = merged
        return Resources(scalars, ranges)._pruned()

    def __sub__(self, other: Resources) -> Resources:
        """Raises ResourceError if `other` holds what `self` does not."""
        scalars = dict(self.scalars)
        for key, value in other.scalars.items():
            if scalars.get(key, 0) < value:
                raise ResourceError(f"{value / 1000:g} {key[0]} are not in {scalars.get(key, 0) / 1000:g}")
            scalars[key] -= value
        ranges = dict(self.ranges)
        for key, theirs in other.ranges.items():
            ranges[key] = subtract_ranges(ranges.get(key, ()), theirs)
        return Resources(scalars, ranges)._pruned()

    def _pruned(self) -> Resources:
        return Resources(
            {key: value for key, value in self.scalars.items() if value},
            {key: value for key, value in self.ranges.items() if value},
        )

    def __str__(self) -> str:
        return f"{self.cpus:.10g} cpus, {self.mem_mb:.10g} MB, {self.port_count} ports"


def _size(ranges: Ranges) -> int:
    return sum(end - begin + 1 for begin, end in ranges)


@dataclass(frozen=True)
class _Traits:
    reserved: bool
    revocable: bool


@cache  # a cluster has a handful of them
def _traits(traits: str) -> _Traits:
    parsed = json.loads(traits)
    reserved = bool(parsed.get("reservations")) or parsed.get("role", "*") != "*"
    return _Traits(reserved, "revocable" in parsed)


NOTHING = Resources({}, {})
