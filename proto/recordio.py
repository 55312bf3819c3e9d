"""RecordIO, the framing of Mesos' event streams: a decimal length, a newline, that many bytes."""

MAX_RECORD_BYTES = 1 << 28  # far above the offers of ten thousand agents in one event
_MAX_LENGTH_DIGITS = 20


class RecordError(ValueError):
    """The stream is not RecordIO."""


class RecordDecoder:
    """Cuts a stream that arrives in pieces of any size into records."""

    def __init__(self, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        self._max_record_bytes = max_record_bytes
        self._buffer = bytearray()
        self._length: int | None = None  # of the record whose bytes are being gathered

    def feed(self, data: bytes) -> list[bytes]:
        """The records that `data` completes.

        Raises:
            RecordError: if a length is not a number or is larger than `max_record_bytes`.
        """
        self._buffer += data
        records: list[bytes] = []
        while True:
            if self._length is None:
                self._length = self._take_length()
            if self._length is None or len(self._buffer) < self._length:
                return records
            records.append(bytes(memoryview(self._buffer)[: self._length]))
            del self._buffer[: self._length]
            self._length = None

    def _take_length(self) -> int | None:
        end = self._buffer.find(b"\n", 0, _MAX_LENGTH_DIGITS + 1)
        digits = bytes(self._buffer[: end if end >= 0 else _MAX_LENGTH_DIGITS + 1])
        if (end < 0 and len(digits) <= _MAX_LENGTH_DIGITS and (not digits or digits.isdigit())) or not self._buffer:
            return None
        if end < 0 or not digits.isdigit() or int(digits) > self._max_record_bytes:
            raise RecordError(f"not the length of a record: {digits!r}")
        del self._buffer[: end + 1]
        return int(digits)
