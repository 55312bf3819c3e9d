"""The tensors' way through a server: pushes as they arrive, parameters as they leave."""

from executor.parameter_slice import ParameterSlice
from executor.session import Session
from proto.exchange_pb2 import Header, Parameters, Push
from proto.frames import Assembly, FrameError, chunked


class PushInbox:
    """Puts together the pushes that arrive on one stream."""

    def __init__(self) -> None:
        self._assembly: Assembly | None = None

    def take(
        self, push: Push, payload: memoryview, held: ParameterSlice
    ) -> bytes | bytearray | memoryview | None:
        """Takes a frame; the whole gradient when it is complete.

        Raises:
            FrameError: the frame does not follow the last one, or the push has not the slice's size.
        """
        if len(payload) == push.bytes:
            return payload
        if push.offset == 0 or self._assembly is None:
            size = 4 * (held.end - held.begin)
            if push.bytes != size:  # before memory is set aside for it
                raise FrameError(f"a push of {push.bytes} bytes to a slice of {size}")
            self._assembly = Assembly(size)
        if not self._assembly.add(push.offset, payload):
            return None
        data, self._assembly = self._assembly.data, None
        return data


class ParameterOutbox:
    """Who waits for which version of the parameters, and the frames that carry one."""

    def __init__(self) -> None:
        self._attempt = 0
        self._wants: dict[Session, int] = {}
        self._frames: tuple[int, list[bytes]] = (-1, [])  # of a version, made once for all workers

    def restart(self, attempt: int) -> None:
        """Another attempt: whoever waited gets a new membership and asks again."""
        self._attempt = attempt
        self._wants = {}
        self._frames = (-1, [])

    def forget(self, session: Session) -> None:
        """The session has ended."""
        self._wants.pop(session, None)

    def want(self, session: Session, version: int, held: ParameterSlice) -> None:
        """Sends the slice, or later, when it has this version."""
        if version <= held.version:
            session.send_frames(self._version(held))
        else:
            self._wants[session] = version

    def send(self, held: ParameterSlice) -> None:
        """The slice has a new version: sends it to whoever waited for it."""
        for session, version in list(self._wants.items()):
            if version <= held.version:
                del self._wants[session]
                session.send_frames(self._version(held))

    def _version(self, held: ParameterSlice) -> list[bytes]:
        if self._frames[0] != held.version:
            data = held.parameters.data.cast("B")

            def header(offset: int) -> Header:
                parameters = Parameters(version=held.version, offset=offset, bytes=len(data))
                return Header(attempt=self._attempt, parameters=parameters)

            self._frames = (held.version, list(chunked(header, data)))
        return self._frames[1]
