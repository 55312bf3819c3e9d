"""Host and port of a Mesos daemon, as people and URLs write them."""

from urllib.parse import urlsplit


def parse_address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Splits "host:port", "[v6]:port" or, with a default port, "host", "[v6]" and a bare "v6".

    Raises:
        ValueError: with one line that says what was expected.
    """
    expected = f"expected HOST:PORT, for example localhost:5050 or [::1]:5050, not {text!r}"
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(expected) from None
    if port is None:
        port = default_port
    if not host or not port or parts.netloc != text or parts.username is not None:
        raise ValueError(expected)
    return host, port


def format_address(host: str, port: int) -> str:
    """The inverse of parse_address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def redirect_target(location: str) -> str:
    """ "host:port" of a Location header; Mesos sends "//host:port" or "//host:port/path", without a scheme.

    Raises:
        ValueError: if the header names no host.
    """
    netloc = urlsplit(location).netloc or location
    return format_address(*parse_address(netloc, default_port=5050))
