"""HttpParser against responses as Mesos, proxies and broken or hostile peers send them."""

import gzip
import zlib

import pytest
from http_parser.http import (
    HPE_DATA_AFTER_END,
    HPE_HEADER_OVERFLOW,
    HPE_INVALID_BODY,
    HPE_INVALID_EOF_STATE,
    HPE_INVALID_MESSAGE,
    HPE_INVALID_STATUS,
    HPE_OK,
    MAX_HEADER_SIZE,
    HttpParser,
)
from http_parser.parser import HttpParser as CompiledModulesHttpParser
from http_parser.util import IOrderedDict
from hypothesis import given
from hypothesis import strategies as st


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


RECORD = b'27\n{"type":"HEARTBEAT","x":12}'
STREAM = (
    b"HTTP/1.1 200 OK\r\nMesos-Stream-Id: 130ae4e3-6b13\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n" + chunked(RECORD, RECORD)
)
REDIRECT = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: //10.0.0.2:5050\r\nContent-Length: 0\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 16\r\n\r\nStill recovering"


def feed(parser: HttpParser, data: bytes, sizes: list[int] | None = None) -> bytes:
    """Feeds data in pieces (the last size repeats), asserting that all is taken; returns the body."""
    body, start = b"", 0
    sizes = list(sizes or [len(data)])
    while start < len(data):
        piece = data[start : start + (sizes.pop(0) if len(sizes) > 1 else sizes[0])]
        assert parser.execute(piece, len(piece)) == len(piece), parser.get_error_reason()
        body += parser.recv_body()
        start += len(piece)
    return body


def error_of(data: bytes, **options: int) -> int:
    parser = HttpParser(**options)
    assert parser.execute(data, len(data)) != len(data)
    assert parser.get_error_reason()
    assert parser.execute(b"more", 4) == 0, "an error is final"
    return parser.get_errno()


def test_pymesos_imports_the_class_from_here() -> None:
    assert CompiledModulesHttpParser is HttpParser
    # pymesos takes a parser with an attribute `errno` for http-parser's pure Python one and handles it differently.
    assert not hasattr(HttpParser(), "errno")


@pytest.mark.parametrize("kind", [1, 2])
def test_a_chunked_stream(kind: int) -> None:
    parser = HttpParser(kind=kind)
    assert feed(parser, STREAM) == RECORD + RECORD
    assert parser.is_chunked()
    assert parser.is_headers_complete()
    assert parser.is_message_complete()
    assert parser.get_status_code() == 200
    assert parser.get_version() == (1, 1)
    assert parser.get_headers()["MESOS-STREAM-ID"] == "130ae4e3-6b13"
    assert parser.get_errno() == HPE_OK


@pytest.mark.parametrize("kind", [1, 2])
def test_split_at_every_byte(kind: int) -> None:
    parser = HttpParser(kind=kind)
    assert feed(parser, STREAM, [1]) == RECORD + RECORD
    assert parser.is_message_complete()


def test_the_body_is_there_as_soon_as_it_came() -> None:
    parser = HttpParser()
    head, _, rest = STREAM.partition(b"\r\n\r\n")
    assert parser.execute(head + b"\r\n\r\n", len(head) + 4) == len(head) + 4
    assert parser.is_headers_complete()
    assert not parser.is_partial_body()
    part = rest[: rest.index(b"{") + 5]
    parser.execute(part, len(part))
    assert parser.is_partial_body()
    assert parser.recv_body() == RECORD[: RECORD.index(b"{") + 5]
    assert not parser.is_partial_body()
    assert not parser.is_message_complete()


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=20),
    kind=st.sampled_from([1, 2]),
)
def test_any_chunks_in_any_pieces(pieces: list[bytes], sizes: list[int], kind: int) -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n" + chunked(*pieces)
    parser = HttpParser(kind=kind)
    assert feed(parser, data, sizes) == b"".join(pieces)
    assert parser.is_message_complete()
    assert parser.is_chunked()


@given(data=st.binary(max_size=400), sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_noise_never_raises(data: bytes, sizes: list[int]) -> None:
    parser = HttpParser(kind=1)
    start = 0
    while start < len(data):
        piece = data[start : start + sizes[start % len(sizes)]]
        taken = parser.execute(piece, len(piece))
        if taken != len(piece):
            assert parser.get_errno() != HPE_OK
            break
        start += len(piece)
    parser.execute(b"", 0)


@pytest.mark.parametrize("sizes", [None, [1], [7]])
def test_redirect_307(sizes: list[int] | None) -> None:
    parser = HttpParser()
    assert feed(parser, REDIRECT, sizes) == b""
    assert parser.get_status_code() == 307
    assert parser.get_headers()["location"] == "//10.0.0.2:5050"
    assert parser.is_message_complete()
    assert not parser.is_chunked()


@pytest.mark.parametrize("sizes", [None, [1]])
def test_unavailable_503(sizes: list[int] | None) -> None:
    parser = HttpParser()
    assert feed(parser, UNAVAILABLE, sizes) == b"Still recovering"
    assert parser.get_status_code() == 503


def test_length_says_how_much_of_the_buffer_counts() -> None:
    parser = HttpParser()
    buffer = bytearray(UNAVAILABLE + b"left over from an earlier read")
    assert parser.execute(buffer, len(UNAVAILABLE)) == len(UNAVAILABLE)
    assert parser.is_message_complete()
    parser = HttpParser()
    assert parser.execute(memoryview(buffer), len(UNAVAILABLE)) == len(UNAVAILABLE)
    assert parser.recv_body() == b"Still recovering"


class TestHeaderLimit:
    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"X: " + b"a" * MAX_HEADER_SIZE, id="header that does not end"),
            pytest.param(b"X: " + b"a" * MAX_HEADER_SIZE + b"\r\n\r\n", id="one large header"),
            pytest.param(b"X: aaaaaaaa\r\n" * (MAX_HEADER_SIZE // 8), id="many small headers"),
        ],
    )
    @pytest.mark.parametrize("size", [None, 1000])
    def test_headers(self, data: bytes, size: int | None) -> None:
        parser = HttpParser()
        data = b"HTTP/1.1 200 OK\r\n" + data
        pieces = [data] if size is None else [data[i : i + size] for i in range(0, len(data), size)]
        assert any(parser.execute(piece, len(piece)) != len(piece) for piece in pieces)
        assert parser.get_errno() == HPE_HEADER_OVERFLOW

    def test_a_status_line_that_does_not_end(self) -> None:
        assert error_of(b"HTTP/1.1 200 " + b"a" * MAX_HEADER_SIZE) == HPE_HEADER_OVERFLOW

    def test_empty_lines_without_end(self) -> None:
        assert error_of(b"\r\n" * MAX_HEADER_SIZE) == HPE_HEADER_OVERFLOW

    @pytest.mark.parametrize("framing", [b"5;x=", b"0\r\nX: "], ids=["chunk extension", "trailer"])
    def test_what_surrounds_chunks(self, framing: bytes) -> None:
        parser = HttpParser()
        feed(parser, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framing)
        taken = [parser.execute(b"a" * 1000, 1000) for _ in range(MAX_HEADER_SIZE // 1000 + 2)]
        assert taken[0] == 1000
        assert taken[-1] == 0
        assert parser.get_errno() == HPE_HEADER_OVERFLOW

    def test_what_is_allowed(self) -> None:
        parser = HttpParser(max_header_size=200)
        body = b"a" * 10_000
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\nX: " + b"b" * 100
        assert feed(parser, head + b"\r\n\r\n" + body) == body
        assert error_of(head + b"b" * 100 + b"\r\n\r\n", max_header_size=200) == HPE_HEADER_OVERFLOW

    def test_many_tiny_chunks_are_no_headers(self) -> None:
        parser = HttpParser(max_header_size=100)
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(*[b"x"] * 200)
        assert feed(parser, data, [1]) == b"x" * 200


class TestMalformed:
    @pytest.mark.parametrize(
        "data",
        [
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS handshake
            b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n",
        ],
    )
    def test_is_refused(self, data: bytes) -> None:
        assert error_of(data, kind=1) in (HPE_INVALID_MESSAGE, HPE_INVALID_STATUS)

    def test_a_bad_status_has_its_own_code(self) -> None:
        assert error_of(b"HTTP/1.1 2x0 OK\r\n\r\n") == HPE_INVALID_STATUS

    @pytest.mark.parametrize("end", range(1, len(STREAM), 7))
    def test_an_end_within_the_message(self, end: int) -> None:
        parser = HttpParser()
        feed(parser, STREAM[:end])
        assert parser.execute(b"", 0) != 0
        assert parser.get_errno() == HPE_INVALID_EOF_STATE
        assert not parser.is_message_complete()

    def test_more_behind_the_end(self) -> None:
        assert error_of(UNAVAILABLE + b"x") == HPE_DATA_AFTER_END
        parser = HttpParser()
        assert feed(parser, UNAVAILABLE) == b"Still recovering"
        assert parser.execute(STREAM, len(STREAM)) == 0
        assert parser.get_errno() == HPE_DATA_AFTER_END
        assert parser.get_status_code() == 503
        assert parser.get_headers()["Content-Length"] == "16"


class TestEnd:
    def test_a_body_that_ends_with_the_connection(self) -> None:
        parser = HttpParser()
        assert feed(parser, b"HTTP/1.0 200 OK\r\n\r\nhello", [3]) == b"hello"
        assert not parser.is_message_complete()
        assert parser.execute(b"", 0) == 0
        assert parser.is_message_complete()
        assert not parser.should_keep_alive()

    def test_a_connection_that_said_nothing(self) -> None:
        parser = HttpParser()
        assert parser.execute(b"", 0) == 0
        assert not parser.is_message_begin()
        assert parser.get_status_code() == 0
        assert parser.get_version() == (0, 0)

    def test_the_end_after_the_end(self) -> None:
        parser = HttpParser()
        feed(parser, UNAVAILABLE)
        assert parser.execute(b"", 0) == 0

    @pytest.mark.parametrize("sizes", [None, [1]])
    def test_interim_responses_are_skipped(self, sizes: list[int] | None) -> None:
        parser = HttpParser()
        interim = b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n"
        assert feed(parser, interim + UNAVAILABLE, sizes) == b"Still recovering"
        assert parser.get_status_code() == 503
        assert "x-interim" not in parser.get_headers()

    @pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
    def test_responses_without_body(self, status: bytes) -> None:
        parser = HttpParser()
        feed(parser, b"HTTP/1.1 " + status + b"\r\n\r\n")
        assert parser.is_message_complete()

    def test_the_answer_to_head(self) -> None:
        parser = HttpParser(header_only=True)
        feed(parser, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        assert parser.is_message_complete()
        assert parser.execute(b"x", 1) == 0

    def test_upgrade_leaves_the_rest_to_the_caller(self) -> None:
        data = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        parser = HttpParser(kind=1)
        assert parser.execute(data + b"\x81\x00", len(data) + 2) == len(data)
        assert parser.is_upgrade()
        assert parser.is_message_complete()


class TestHeaders:
    def test_values_of_one_name_are_joined(self) -> None:
        parser = HttpParser()
        feed(parser, b"HTTP/1.1 200 OK\r\nVia: a\r\nvia: b\r\nContent-Length: 0\r\n\r\n")
        assert parser.get_headers()["VIA"] == "a, b"
        assert list(parser.get_headers()) == ["Via", "Content-Length"]

    def test_trailers_count_as_headers(self) -> None:
        parser = HttpParser()
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert feed(parser, head + b"1\r\na\r\n0\r\nDigest: x\r\n\r\n", [1]) == b"a"
        assert parser.get_headers()["digest"] == "x"

    def test_the_mapping(self) -> None:
        headers = IOrderedDict({"Content-Type": "text/plain", "Host": "x"})
        headers["CONTENT-TYPE"] = "text/html"
        assert list(headers.items()) == [("Content-Type", "text/html"), ("Host", "x")]
        assert "host" in headers
        assert 1 not in headers
        del headers["HOST"]
        assert headers == {"Content-Type": "text/html"}
        assert len(headers) == 1
        assert headers.get("missing") is None
        with pytest.raises(KeyError):
            headers["missing"]


class TestDecompression:
    @pytest.mark.parametrize(("coding", "packed"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
    @pytest.mark.parametrize("sizes", [None, [1]])
    def test_content_encoding(self, coding: bytes, packed: object, sizes: list[int] | None) -> None:
        text = b"offers " * 1000
        body = packed(text)  # type: ignore[operator]
        data = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(body)) + body
        parser = HttpParser(decompress=True)
        assert feed(parser, data, sizes) == text
        assert "content-encoding" not in parser.get_headers()
        assert feed(HttpParser(), data) == body

    @pytest.mark.parametrize("body", [b"not gzip at all", gzip.compress(b"offers")[:-6]])
    def test_damaged(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
        parser = HttpParser(decompress=True)
        assert parser.execute(head + body, len(head + body)) != len(head + body)
        assert parser.get_errno() == HPE_INVALID_BODY


class TestRequests:
    REQUEST = b"POST /api/v1%20x?a=1&b#top HTTP/1.1\r\nHost: m\r\nContent-Length: 2\r\nX-Forwarded-SSL: on\r\n\r\nhi"

    @pytest.mark.parametrize("kind", [0, 2])
    @pytest.mark.parametrize("sizes", [None, [1]])
    def test_a_request(self, kind: int, sizes: list[int] | None) -> None:
        parser = HttpParser(kind=kind)
        assert feed(parser, self.REQUEST, sizes) == b"hi"
        assert parser.get_method() == "POST"
        assert parser.get_url() == "/api/v1%20x?a=1&b#top"
        assert parser.get_path() == "/api/v1%20x"
        assert parser.get_query_string() == "a=1&b"
        assert parser.get_fragment() == "top"
        assert parser.get_status_code() == 0
        assert parser.should_keep_alive()

    def test_wsgi(self) -> None:
        parser = HttpParser()
        feed(parser, self.REQUEST)
        environ = parser.get_wsgi_environ()
        assert environ["REQUEST_METHOD"] == "POST"
        assert environ["PATH_INFO"] == "/api/v1 x"
        assert environ["QUERY_STRING"] == "a=1&b"
        assert environ["CONTENT_LENGTH"] == "2"
        assert environ["HTTP_HOST"] == "m"
        assert environ["wsgi.url_scheme"] == "https"
        assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"

    def test_an_unknown_kind(self) -> None:
        with pytest.raises(ValueError, match="kind must be 0"):
            HttpParser(kind=3)


def test_recv_body_into_a_buffer() -> None:
    parser = HttpParser()
    parser.execute(UNAVAILABLE, len(UNAVAILABLE))
    buffer = bytearray(10)
    assert parser.recv_body_into(buffer) == 10
    assert bytes(buffer) == b"Still reco"
    assert parser.is_partial_body()
    assert parser.recv_body_into(memoryview(buffer)) == 6
    assert bytes(buffer[:6]) == b"vering"
    assert not parser.is_partial_body()
