"""The one exception of the embedded cluster."""


class ClusterError(Exception):
    """Something a user can mend, said in one line that names the remedy (log lines may follow it)."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        """`exit_code`: 2 where the command was wrong or something is missing, 1 where a daemon failed."""
        super().__init__(message)
        self.exit_code = exit_code
