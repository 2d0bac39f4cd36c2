"""api.example.com on this machine: a proxy that leads there and nowhere else, behind it TLS and a shaky service.

So the pattern's https:// address stays as it is typed, and all of httpx between it and the socket is real.
"""

import json
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

HOST = "api.example.com"


@dataclass(frozen=True)
class FarSide:
    env: dict[str, str]
    """What httpx reads from its environment: the way there, and whom to trust."""
    calls: Counter[str]
    """Requests by path. Each path belongs to one test."""


class _Service(ThreadingHTTPServer):
    daemon_threads = False  # the end of the block waits for all of them

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tls = tls
        self.calls: Counter[str] = Counter()


class _Handler(BaseHTTPRequestHandler):
    server: _Service
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_CONNECT(self) -> None:
        assert self.path == f"{HOST}:443", self.path
        self.send_response(200)
        self.end_headers()
        self.finish()
        self.request = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.setup()

    def finish(self) -> None:
        super().finish()
        if isinstance(self.connection, ssl.SSLSocket):
            self.connection.close()  # the server knows only of the socket below it

    def do_GET(self) -> None:
        """`/users/<n>`: 503, then a connection that breaks off, then the user; from 400 on, that status for ever."""
        number = int(self.path.rpartition("/")[2])
        self.server.calls[self.path] += 1
        tries = self.server.calls[self.path]
        if number >= 400:
            self._answer(number, None)
        elif tries == 1:
            self._answer(503, None)
        elif tries == 2:
            self.close_connection = True
        else:
            self._answer(200, {"id": number, "name": "Anna"})

    def _answer(self, status: int, value: Any) -> None:  # Any: JSON
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_far_side(directory: Path) -> Iterator[FarSide]:
    certificate = _write_certificate(directory)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with _Service(tls) as service:
        thread = Thread(target=service.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        proxy = f"http://127.0.0.1:{service.server_address[1]}"
        yield FarSide({"HTTPS_PROXY": proxy, "SSL_CERT_FILE": str(certificate)}, service.calls)
        service.shutdown()
        thread.join()


def _write_certificate(directory: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    path = directory / "api.example.com.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
    return path
