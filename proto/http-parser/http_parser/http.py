"""An incremental parser of one HTTP/1.x request or response, with the interface of http-parser 0.9.0."""

import os
import zlib
from typing import Any
from urllib.parse import unquote, urlsplit

import httptools

from .util import IOrderedDict

__all__ = [
    "HPE_DATA_AFTER_END",
    "HPE_HEADER_OVERFLOW",
    "HPE_INVALID_BODY",
    "HPE_INVALID_EOF_STATE",
    "HPE_INVALID_MESSAGE",
    "HPE_INVALID_METHOD",
    "HPE_INVALID_STATUS",
    "HPE_INVALID_URL",
    "HPE_OK",
    "HttpParser",
    "ParserError",
]

# What get_errno() returns.
HPE_OK = 0
HPE_INVALID_MESSAGE = 1  # not HTTP, or HTTP with a mistake in it
HPE_INVALID_STATUS = 2
HPE_INVALID_METHOD = 3
HPE_INVALID_URL = 4
HPE_INVALID_BODY = 5  # compressed data that does not decompress
HPE_INVALID_EOF_STATE = 6  # the stream ended within the message
HPE_HEADER_OVERFLOW = 7  # more than max_header_size bytes that are no body
HPE_DATA_AFTER_END = 8  # more bytes behind the end of the message

REQUEST, RESPONSE, BOTH = 0, 1, 2
MAX_HEADER_SIZE = 80 * 1024  # bytes, as the C library's HTTP_MAX_HEADER_SIZE
_RESPONSE_PREFIX = b"HTTP/"
_SWITCHING_PROTOCOLS = 101

_ERRNO_OF_ERROR: dict[type[Exception], int] = {
    httptools.HttpParserInvalidStatusError: HPE_INVALID_STATUS,
    httptools.HttpParserInvalidMethodError: HPE_INVALID_METHOD,
    httptools.HttpParserInvalidURLError: HPE_INVALID_URL,
}


class ParserError(Exception):
    """A message that cannot be parsed; `errno` is one of HPE_*."""

    def __init__(self, errno: int, reason: str) -> None:
        super().__init__(reason)
        self.errno = errno


class HttpParser:
    """Parses one message, given in pieces of any size.

    Args:
        kind: 0 for a request, 1 for a response, 2 to find out from the first bytes.
        decompress: undo a gzip or deflate content-encoding (and drop that header).
        header_only: the message has no body, whatever its headers say (a response to HEAD).
        max_header_size: bytes of start line and headers, of trailers, or of one chunk's extensions, that are accepted.
    """

    def __init__(
        self,
        kind: int = BOTH,
        decompress: bool = False,
        header_only: bool = False,
        max_header_size: int = MAX_HEADER_SIZE,
    ) -> None:
        if kind not in (REQUEST, RESPONSE, BOTH):
            raise ValueError(f"kind must be 0 (request), 1 (response) or 2 (either), not {kind!r}")
        self._decompress = decompress
        self._header_only = header_only
        self._max_header_size = max_header_size
        self._request: httptools.HttpRequestParser | None = None
        self._response: httptools.HttpResponseParser | None = None
        self._undecided = b""  # first bytes, while it is not known whether they begin a request or a response
        self._errno = HPE_OK
        self._reason = ""
        self._error: ParserError | None = None  # raised in a callback; httptools wraps what callbacks raise
        self._progress = 0  # grows with every callback that is not about headers
        self._bytes_without_progress = 0
        self._upgrade = False
        self._begin_message()
        if kind != BOTH:
            self._choose(kind)

    def _begin_message(self) -> None:
        self._url = b""
        self._headers = IOrderedDict()
        self._header_size = 0
        self._body: list[bytes] = []
        self._inflater: Any = None  # zlib's decompression object, which has no public type
        self._message_begin = False
        self._headers_complete = False
        self._message_complete = False

    def _choose(self, kind: int) -> None:
        callbacks = _Callbacks(self)
        if kind == REQUEST:
            self._request = httptools.HttpRequestParser(callbacks)
        else:
            self._response = httptools.HttpResponseParser(callbacks)

    # --- feeding ---------------------------------------------------------------------------------------------------

    def execute(self, data: bytes | bytearray | memoryview, length: int) -> int:
        """Parses the next `length` bytes of `data`; a length of 0 says that the stream has ended.

        Returns the number of bytes consumed. Anything but `length` is an error: see get_errno().
        """
        if self._errno:
            return 0 if length else 1
        try:
            if length == 0:
                self._finish()
                return 0
            piece = bytes(memoryview(data)[:length])
            if self._message_complete:
                raise ParserError(HPE_DATA_AFTER_END, "data after the end of the message")
            return self._feed(piece)
        except ParserError as error:
            self._errno, self._reason = error.errno, str(error)
            return 0 if length else 1

    def _feed(self, piece: bytes) -> int:
        length = len(piece)
        if self._request is None and self._response is None:
            self._undecided += piece
            start = self._undecided.lstrip(b"\r\n")  # llhttp skips empty lines ahead of a message
            if len(start) < len(_RESPONSE_PREFIX) and _RESPONSE_PREFIX.startswith(start):
                self._check_header_size(len(self._undecided))
                return length
            self._choose(RESPONSE if start.startswith(_RESPONSE_PREFIX) else REQUEST)
            piece, self._undecided = self._undecided, b""

        progress_before = self._progress
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            # What follows belongs to another protocol; it is the caller's, not ours.
            self._upgrade = True
            self._message_complete = True
            return int(upgrade.args[0])
        except httptools.HttpParserError as error:
            if self._error is not None:
                raise self._error from None
            if self._message_complete:
                raise ParserError(HPE_DATA_AFTER_END, "data after the end of the message") from None
            raise ParserError(_ERRNO_OF_ERROR.get(type(error), HPE_INVALID_MESSAGE), str(error)) from None
        self._bytes_without_progress = 0 if self._progress > progress_before else self._bytes_without_progress + length
        if not self._message_complete:
            # httptools keeps an unfinished header to itself, so a header without end shows only here.
            self._check_header_size(self._bytes_without_progress)
        return length

    def _finish(self) -> None:
        if self._message_complete or not (self._message_begin or self._undecided):
            return
        ends_with_stream = (
            self._headers_complete
            and self._response is not None
            and not self.is_chunked()
            and "content-length" not in self._headers
        )
        if not ends_with_stream:
            raise ParserError(HPE_INVALID_EOF_STATE, "the stream ended within the message")
        self._end_message()

    def _check_header_size(self, size: int) -> None:
        if size > self._max_header_size:
            raise ParserError(HPE_HEADER_OVERFLOW, f"headers larger than {self._max_header_size} bytes")

    @property
    def _parser(self) -> httptools.HttpRequestParser | httptools.HttpResponseParser:
        parser = self._request or self._response
        if parser is None:
            raise ParserError(HPE_INVALID_MESSAGE, "nothing was parsed yet")
        return parser

    # --- what httptools reports, through _Callbacks -------------------------------------------------------------------

    def _on_message_begin(self) -> None:
        if self._message_complete:
            raise ParserError(HPE_DATA_AFTER_END, "data after the end of the message")
        self._message_begin = True

    def _on_url(self, url: bytes) -> None:
        self._url += url
        self._check_header_size(len(self._url))

    def _on_header(self, name: bytes, value: bytes) -> None:
        self._header_size += len(name) + len(value)
        self._check_header_size(self._header_size)
        key, text = name.decode("latin-1"), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def _on_headers_complete(self) -> None:
        self._progress += 1
        self._header_size = 0  # trailers are counted anew
        if self._is_interim():
            return
        self._headers_complete = True
        encoding = self._headers.get("content-encoding", "").lower()
        if self._decompress and encoding in ("gzip", "deflate"):
            self._inflater = zlib.decompressobj(zlib.MAX_WBITS + 16 if encoding == "gzip" else zlib.MAX_WBITS)
            del self._headers["content-encoding"]
        if self._header_only:
            self._message_complete = True

    def _on_body(self, piece: bytes) -> None:
        self._progress += 1
        if self._header_only:
            raise ParserError(HPE_DATA_AFTER_END, "a body where there can be none")
        if self._inflater is not None:
            try:
                piece = self._inflater.decompress(piece)
            except zlib.error as error:
                raise ParserError(HPE_INVALID_BODY, f"compressed body: {error}") from None
        if piece:
            self._body.append(piece)

    def _on_chunk(self) -> None:
        self._progress += 1

    def _on_message_complete(self) -> None:
        if self._is_interim():
            self._begin_message()
        else:
            self._end_message()

    def _end_message(self) -> None:
        if self._inflater is not None and not self._header_only:
            try:
                rest = self._inflater.flush()
            except zlib.error as error:
                raise ParserError(HPE_INVALID_BODY, f"compressed body: {error}") from None
            if not self._inflater.eof:
                raise ParserError(HPE_INVALID_BODY, "compressed body: it is cut short")
            if rest:
                self._body.append(rest)
        self._message_complete = True

    def _is_interim(self) -> bool:
        if self._response is None:
            return False
        code = self._response.get_status_code()
        return 100 <= code < 200 and code != _SWITCHING_PROTOCOLS

    # --- what was parsed ---------------------------------------------------------------------------------------------

    def get_errno(self) -> int:
        """One of HPE_*; HPE_OK (0) as long as nothing went wrong."""
        return self._errno

    def get_error_reason(self) -> str:
        """What went wrong, for people; empty if nothing did."""
        return self._reason

    def get_version(self) -> tuple[int, int]:
        """(major, minor) of the HTTP version; (0, 0) while it is unknown."""
        if not self._message_begin:
            return (0, 0)
        major, minor = self._parser.get_http_version().split(".")
        return int(major), int(minor)

    def get_method(self) -> str:
        """Method of a request; empty for a response."""
        if self._request is None or not self._message_begin:
            return ""
        return self._request.get_method().decode("ascii")

    def get_status_code(self) -> int:
        """Status code of a response; 0 for a request, or while it is unknown."""
        if self._response is None or not self._message_begin:
            return 0
        return self._response.get_status_code()

    def get_url(self) -> str:
        """The request's target as it was sent."""
        return self._url.decode("latin-1")

    def get_path(self) -> str:
        """The path within the request's target."""
        return urlsplit(self.get_url()).path

    def get_query_string(self) -> str:
        """What follows the question mark in the request's target."""
        return urlsplit(self.get_url()).query

    def get_fragment(self) -> str:
        """What follows the number sign in the request's target."""
        return urlsplit(self.get_url()).fragment

    def get_headers(self) -> IOrderedDict:
        """The headers so far, trailers included; values of one name are joined by a comma."""
        return self._headers

    def get_wsgi_environ(self) -> dict[str, str]:
        """The request as a WSGI environment (PEP 3333), without the streams."""
        environ = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in self._headers.items()}
        for key in ("CONTENT_LENGTH", "CONTENT_TYPE", "SCRIPT_NAME"):
            if "HTTP_" + key in environ:
                environ[key] = environ.pop("HTTP_" + key)
        script_name = environ.get("SCRIPT_NAME", os.environ.get("SCRIPT_NAME", ""))
        secure = (
            environ.get("HTTP_X_FORWARDED_PROTOCOL", "").lower() == "ssl"
            or environ.get("HTTP_X_FORWARDED_SSL", "").lower() == "on"
        )
        return environ | {
            "REQUEST_METHOD": self.get_method(),
            "RAW_URI": self.get_url(),
            "SCRIPT_NAME": script_name,
            "PATH_INFO": unquote(self.get_path()).removeprefix(script_name),
            "QUERY_STRING": self.get_query_string(),
            "SERVER_PROTOCOL": "HTTP/{}.{}".format(*self.get_version()),
            "wsgi.url_scheme": "https" if secure else "http",
        }

    def recv_body(self) -> bytes:
        """Takes the body that has come since the last call."""
        body = b"".join(self._body)
        self._body = []
        return body

    def recv_body_into(self, buffer: bytearray | memoryview) -> int:
        """Moves as much of the body into `buffer` as fits; returns the number of bytes."""
        body = self.recv_body()
        count = min(len(body), len(buffer))
        memoryview(buffer)[:count] = body[:count]
        if count < len(body):
            self._body = [body[count:]]
        return count

    def is_upgrade(self) -> bool:
        """Whether the connection changes to another protocol behind this message."""
        return self._upgrade

    def is_message_begin(self) -> bool:
        """Whether the message has begun."""
        return self._message_begin

    def is_headers_complete(self) -> bool:
        """Whether all headers were read."""
        return self._headers_complete

    def is_partial_body(self) -> bool:
        """Whether there is body that recv_body() has not taken."""
        return bool(self._body)

    def is_message_complete(self) -> bool:
        """Whether the message was read to its end."""
        return self._message_complete

    def is_chunked(self) -> bool:
        """Whether the body comes in chunks."""
        codings = self._headers.get("transfer-encoding", "").lower().split(",")
        return codings[-1].strip() == "chunked"

    def should_keep_alive(self) -> bool:
        """Whether the connection may carry another message."""
        return self._message_begin and bool(self._parser.should_keep_alive())


class _Callbacks:
    """What httptools calls. It wraps whatever these raise, so a ParserError is also noted for _feed()."""

    def __init__(self, parser: HttpParser) -> None:
        self._parser = parser

    def _guard(self, handler: Any, *args: bytes) -> None:
        try:
            handler(*args)
        except ParserError as error:
            self._parser._error = error
            raise

    def on_message_begin(self) -> None:
        self._guard(self._parser._on_message_begin)

    def on_url(self, url: bytes) -> None:
        self._guard(self._parser._on_url, url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._guard(self._parser._on_header, name, value)

    def on_headers_complete(self) -> None:
        self._guard(self._parser._on_headers_complete)

    def on_body(self, piece: bytes) -> None:
        self._guard(self._parser._on_body, piece)

    def on_chunk_header(self) -> None:
        self._guard(self._parser._on_chunk)

    def on_message_complete(self) -> None:
        self._guard(self._parser._on_message_complete)
