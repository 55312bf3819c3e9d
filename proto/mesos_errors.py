"""What a call on a Mesos driver may raise."""


class MesosError(RuntimeError):
    """Base of all errors of the drivers (pymesos raises RuntimeError)."""


class NotConnected(MesosError):
    """The driver is not subscribed just now: nothing was sent. Reconcile after the next registration."""


class CallFailed(MesosError):
    """The connection broke or timed out: the call may have arrived or not. Reconcile to find out."""


class CallRefused(MesosError):
    """Mesos answered with an error.

    Attributes:
        status: HTTP status code.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Mesos refused with HTTP {status}: {message}")
        self.status = status


class StreamFailed(MesosError):
    """A subscription ended or never began; the driver tries again by itself."""


class Redirected(StreamFailed):
    """Another master leads.

    Attributes:
        address: "host:port" of that master.
    """

    def __init__(self, address: str) -> None:
        super().__init__(f"redirected to {address}")
        self.address = address
