"""TLS towards Mesos daemons, asked for by the variables that libprocess, Mesos' own library, reads.

| variable | meaning |
| --- | --- |
| LIBPROCESS_SSL_ENABLED | 1 or true: masters and agents speak TLS |
| LIBPROCESS_SSL_CA_FILE, LIBPROCESS_SSL_CA_DIR | whose certificates are trusted; default: the system's |
| LIBPROCESS_SSL_CERT_FILE, LIBPROCESS_SSL_KEY_FILE | our own certificate, for daemons that ask for one |
| LIBPROCESS_SSL_VERIFY_SERVER_CERT | 0 or false: any certificate will do. Default: true, unlike libprocess |

https://mesos.apache.org/documentation/latest/ssl/
"""

import http.client
import ipaddress
import ssl
from collections.abc import Mapping

from proto.mesos_address import parse_address

_PREFIX = "LIBPROCESS_SSL_"


class Tls:
    """How to speak TLS with a daemon. A name must be in its certificate; an address need not, for it rarely is."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Reads the variables.

        Raises:
            ValueError: a file that they name cannot be used; one line.
        """
        self._for_names = _context(environ, names=True)
        self._for_addresses = _context(environ, names=False)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Tls | None":
        """None unless TLS is enabled. Raises ValueError as the constructor does."""
        return cls(environ) if _flag(environ, "ENABLED", False) else None

    def context_for(self, host: str) -> ssl.SSLContext:
        """For connections to a host."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return self._for_names
        return self._for_addresses


def http_connection(address: str, timeout_s: float, tls: Tls | None) -> http.client.HTTPConnection:
    """A connection, not opened yet, to "host:port"."""
    host, port = parse_address(address)
    if tls is None:
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=tls.context_for(host))


def _context(environ: Mapping[str, str], names: bool) -> ssl.SSLContext:
    ca_file, ca_dir, certificate, key = (
        environ.get(_PREFIX + name) or None for name in ("CA_FILE", "CA_DIR", "CERT_FILE", "KEY_FILE")
    )
    try:
        context = ssl.create_default_context(cafile=ca_file, capath=ca_dir)
        if certificate:
            context.load_cert_chain(certificate, key)
    except OSError as error:  # SSLError is one
        named = ", ".join(path for path in (ca_file, ca_dir, certificate, key) if path)
        raise ValueError(f"{_PREFIX}*: cannot use {named}: {error.strerror or error}") from None
    context.check_hostname = names
    if not _flag(environ, "VERIFY_SERVER_CERT", True):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _flag(environ: Mapping[str, str], name: str, default: bool) -> bool:
    text = environ.get(_PREFIX + name, "").strip().lower()
    return default if not text else text in ("1", "true")
