"""Reports that may be lost with the process that sent them."""

from collections.abc import Callable

from proto import control_pb2 as control

REPORT_S = 1.0  # a report that was sent that long ago has arrived, if there is a driver
KEPT_STEPS = 300  # of those that a driver has not acknowledged while it is away; of epochs and the like, all

Unacknowledged = Callable[[int], control.Progress]
"""What was sent, or is to be, without the driver's having said that it is safe; of steps the last so many."""


def nothing(steps: int) -> control.Progress:
    """Where nothing is acknowledged, all counts as arrived."""
    return control.Progress()


class RecentReports:
    """What the driver was told in the last one or two seconds, or has not acknowledged.

    It is lost if this process dies before it arrives.
    """

    def __init__(self, unacknowledged: Unacknowledged = nothing) -> None:
        self._unacknowledged = unacknowledged
        self._older = control.Progress()
        self._newer = control.Progress()
        self._since = 0.0

    def add(self, message: control.Progress, now: float) -> None:
        """The driver is told this."""
        if now - self._since >= REPORT_S:
            self._older, self._newer, self._since = self._newer, control.Progress(), now
        self._newer.MergeFrom(message)

    def all(self) -> control.Progress:
        """In the order in which the driver was told; what is both recent and not acknowledged is there twice."""
        reports = self._unacknowledged(KEPT_STEPS)
        reports.MergeFrom(self._older)
        reports.MergeFrom(self._newer)
        return reports
