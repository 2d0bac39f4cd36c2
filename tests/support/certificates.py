"""A certificate authority of a test's own, and what it signs."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


class Authority:
    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Authority of a test")])
        own = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.path = folder / "authority.pem"
        """For SSL_CERT_FILE."""
        self.path.write_bytes(own.sign(self._key, SHA256()).public_bytes(Encoding.PEM))

    def server_context(self, *names: str) -> ssl.SSLContext:
        """Of a server that has a certificate for these: host names, and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        known: list[x509.GeneralName] = []
        for name in names:
            try:
                known.append(x509.IPAddress(ip_address(name)))
            except ValueError:
                known.append(x509.DNSName(name))
        builder = self._builder(x509.Name([]), key).add_extension(x509.SubjectAlternativeName(known), critical=True)
        path = self._folder / f"{names[0]}.pem"
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )
