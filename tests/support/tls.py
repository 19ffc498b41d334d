"""Certificates for test servers: an authority and a server certificate, made anew for each run."""

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_USES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
_SIGNS = x509.KeyUsage(
    **dict.fromkeys((*_USES, "encipher_only", "decipher_only"), False), key_cert_sign=True, crl_sign=True
)


class TestAuthority:
    """`ca_file` is what a client trusts; `server_context` is what a server shows."""

    __test__ = False

    def __init__(self, folder: Path, host: str = "localhost") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Postroom test authority")])
        authority = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), True)
        # RFC 5280 4.2.1.1 to 4.2.1.3: who verifies strictly, as Python does by default since 3.13, asks for these
        authority = authority.add_extension(_SIGNS, True).add_extension(self._key_id(), False)
        certificate = authority.sign(self._key, hashes.SHA256())
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.chain = folder / "server.pem"  # certificate and key
        self.chain.write_bytes(self._server(host))

    def _key_id(self) -> x509.SubjectKeyIdentifier:
        return x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        begins: float = -1,
        ends: float = 24,
        issuer: x509.Name | None = None,
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(hours=begins))
            .not_valid_after(now + datetime.timedelta(hours=ends))
        )

    def _server(self, host: str, begins: float = -1, ends: float = 24, *, by_itself: bool = False) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        builder = self._builder(subject, key, begins, ends, subject if by_itself else None).add_extension(
            x509.SubjectAlternativeName(names if host == "localhost" else names[:1]), False
        )
        if not by_itself:
            own = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._key_id())
            builder = builder.add_extension(own, False)
        certificate = builder.sign(key if by_itself else self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return private + certificate.public_bytes(serialization.Encoding.PEM)

    def server_context(self) -> ssl.SSLContext:
        """For a server."""
        return self.context_of(self.chain)

    def odd_context(
        self, host: str = "localhost", begins: float = -1, ends: float = 24, *, by_itself: bool = False
    ) -> ssl.SSLContext:
        """For a server with a certificate for `host`, valid from and to these hours from now, perhaps self-signed."""
        chain = self.chain.with_name(f"{host}{begins}{ends}{by_itself}.pem")
        chain.write_bytes(self._server(host, begins, ends, by_itself=by_itself))
        return self.context_of(chain)

    @staticmethod
    def context_of(chain: Path) -> ssl.SSLContext:
        """For a server that shows this."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context
