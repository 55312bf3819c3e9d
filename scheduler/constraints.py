"""Placement constraints, syntax and meaning as Marathon's: `[worker:|server:]FIELD:OPERATOR[:VALUE]`.

FIELD is `hostname`, `@region` or `@zone` of the agent's fault domain, or an attribute. A constraint counts the
tasks of one role only: workers among workers, servers among servers, as Marathon counts those of one app. Operators
(Marathon's documentation, "Constraints"):

| operator | an agent may take the task if |
| --- | --- |
| UNIQUE | no task of the role is at the field's value yet |
| CLUSTER:VALUE | the field has that value; without VALUE: the value of the tasks that are placed already |
| GROUP_BY[:N] | no value known has fewer tasks of the role; with N: tasks go to new values until N are in use |
| MAX_PER:N | fewer than N tasks of the role are at the field's value |
| IS:VALUE | the field has that value |
| LIKE:REGEX | the whole value matches |
| UNLIKE:REGEX | the whole value does not match, or the agent has no such field |

All but UNLIKE refuse agents that have no such field.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ROLES = ("worker", "server")
_WITHOUT_VALUE = frozenset({"UNIQUE"})
_OPTIONAL_VALUE = frozenset({"CLUSTER", "GROUP_BY"})
_COUNTS = frozenset({"GROUP_BY", "MAX_PER"})
_PATTERNS = frozenset({"LIKE", "UNLIKE"})
OPERATORS = frozenset({"IS", *_WITHOUT_VALUE, *_OPTIONAL_VALUE, *_COUNTS, *_PATTERNS})


class ConstraintError(ValueError):
    """A constraint that cannot be understood; one line with the remedy."""


@dataclass(frozen=True)
class Constraint:
    """One constraint on the tasks of one role; `parse` makes them."""

    role: str
    field: str
    operator: str
    value: str = ""

    @staticmethod
    def parse(text: str) -> tuple[Constraint, ...]:
        """One for each role that it concerns. Raises ConstraintError."""
        roles: tuple[str, ...] = ROLES
        rest = text
        head, _, behind = text.partition(":")
        if head in ROLES and behind.partition(":")[2].partition(":")[0].upper() in OPERATORS:
            roles, rest = (head,), behind
        field, _, behind = rest.partition(":")
        operator, colon, value = behind.partition(":")
        operator = operator.upper()
        if not field or operator not in OPERATORS:
            known = ", ".join(sorted(OPERATORS))
            raise ConstraintError(f"constraint {text!r} is not [worker:|server:]FIELD:OPERATOR[:VALUE]; {known}")
        if operator in _WITHOUT_VALUE and colon:
            raise ConstraintError(f"constraint {text!r}: {operator} takes no value")
        if operator not in _WITHOUT_VALUE | _OPTIONAL_VALUE and not value:
            raise ConstraintError(f"constraint {text!r}: {operator} needs a value")
        if operator in _COUNTS and value and not (value.isascii() and value.isdigit() and int(value) > 0):
            raise ConstraintError(f"constraint {text!r}: {operator} takes a number from 1, not {value!r}")
        if operator in _PATTERNS:
            try:
                re.compile(value)
            except re.error as error:
                raise ConstraintError(f"constraint {text!r}: not a regular expression: {error}") from None
        return tuple(Constraint(role, field, operator, value) for role in roles)

    def __str__(self) -> str:
        return ":".join(part for part in (self.role, self.field, self.operator, self.value) if part)

    def allows(self, value: str | None, placed: Mapping[str, int]) -> bool:
        """Whether one more task may go where the field has `value` (None: it has none).

        Args:
            placed: tasks of the role by the field's value.
        """
        if value is None:
            return self.operator == "UNLIKE"
        match self.operator:
            case "UNIQUE":
                return not placed.get(value)
            case "CLUSTER":
                return value == self.value if self.value else all(other == value for other in placed)
            case "GROUP_BY":
                if not placed.get(value):
                    return True
                return len(placed) >= int(self.value or 0) and placed[value] == min(placed.values())
            case "MAX_PER":
                return placed.get(value, 0) < int(self.value)
            case "IS":
                return value == self.value
            case "LIKE":
                return re.fullmatch(self.value, value) is not None
            case _:
                return re.fullmatch(self.value, value) is None


class Census:
    """Counts the tasks of each role by the values of the fields that constraints name, and decides by them."""

    def __init__(self, constraints: Iterable[Constraint], tasks: Iterable[tuple[str, Mapping[str, str]]] = ()) -> None:
        """
        Args:
            constraints: of the job.
            tasks: (role, fields of its agent) of each task that is placed.
        """
        self._constraints: dict[str, list[tuple[Constraint, Counter[str]]]] = {role: [] for role in ROLES}
        for constraint in constraints:
            self._constraints[constraint.role].append((constraint, Counter()))
        if self.counts:
            for role, fields in tasks:
                self.add(role, fields)

    @property
    def counts(self) -> bool:
        """Whether there is any constraint."""
        return any(self._constraints.values())

    def concerns(self, role: str) -> bool:
        """Whether a constraint concerns tasks of that role."""
        return bool(self._of(role))

    def _of(self, role: str) -> list[tuple[Constraint, Counter[str]]]:
        return self._constraints["server" if role == "replica" else role]  # which serves when its server is lost

    def allows(self, role: str, fields: Mapping[str, str]) -> bool:
        """Whether one more task of the role may go to an agent with these fields."""
        return all(
            constraint.allows(fields.get(constraint.field), placed) for constraint, placed in self._of(role)
        )

    def crowd(self, role: str, fields: Mapping[str, str]) -> int:
        """Tasks in the groups that this agent belongs to: where GROUP_BY would rather have fewer."""
        constraints = self._of(role)
        return sum(placed[fields.get(c.field, "")] for c, placed in constraints if c.operator == "GROUP_BY")

    def add(self, role: str, fields: Mapping[str, str]) -> None:
        """One more task is there."""
        for constraint, placed in self._of(role):
            value = fields.get(constraint.field)
            if value is not None:
                placed[value] += 1
