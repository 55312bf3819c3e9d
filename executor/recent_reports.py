"""Reports that may be lost with the process that sent them."""

from proto import control_pb2 as control

REPORT_S = 1.0  # a report that was sent that long ago has arrived


class RecentReports:
    """What the driver was told in the last one or two seconds: it is lost if this process dies before it arrives."""

    def __init__(self) -> None:
        self._older = control.Progress()
        self._newer = control.Progress()
        self._since = 0.0

    def add(self, message: control.Progress, now: float) -> None:
        """The driver is told this."""
        if now - self._since >= REPORT_S:
            self._older, self._newer, self._since = self._newer, control.Progress(), now
        self._newer.MergeFrom(message)

    def all(self) -> control.Progress:
        """In the order in which the driver was told."""
        reports = control.Progress()
        reports.CopyFrom(self._older)
        reports.MergeFrom(self._newer)
        return reports
