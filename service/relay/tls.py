"""TLS towards a relay: one context for its sessions, what a certificate says, and what a failed handshake is about.

Always verified, never older than TLS 1.2. A session that succeeded lends its ticket to the next handshake; each ticket
is used once (RFC 8446 C.4), and one that a relay does not take means a full handshake, not a failure.
"""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from service.clock import SYSTEM
from service.errors import ConfigurationError
from service.relay.config import RelayConfig
from service.relay.failure import Cause
from service.relay.url import Tls

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFIED_FOR = (
    3600.0  # seconds after a full handshake: then the certificate is asked for again; a promise, so no setting
)
_DAY = 86400.0  # seconds


class RelayConnection(ssl.SSLObject):
    """One TLS connection; it knows when its handshake was complete (monotonic seconds)."""

    completed: float | None = None

    def do_handshake(self) -> None:
        """As in ssl: raises SSLWantReadError until it is complete."""
        super().do_handshake()
        self.completed = SYSTEM.monotonic()


class RelayContext(ssl.SSLContext):
    """A context that offers the last good session's ticket: asyncio and uvloop make each connection by `wrap_bio`."""

    sslobject_class = RelayConnection
    monotonic: Callable[[], float] = SYSTEM.monotonic
    _ticket: ssl.SSLSession | None = None
    _verified_until = 0.0

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As in ssl, with the ticket when there is one."""
        ticket, self._ticket = self._ticket, None
        if session is None and self.monotonic() < self._verified_until:
            session = ticket
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def keep(self, connection: ssl.SSLObject) -> None:
        """Remember the ticket of a session that logged in; that of TLS 1.3 comes after the handshake."""
        if not connection.session_reused:
            self._verified_until = self.monotonic() + _VERIFIED_FOR
        session = connection.session
        if session is not None and session.has_ticket:
            self._ticket = session


def tls_context(config: RelayConfig) -> RelayContext | None:
    """One context for all sessions of a relay; None when it has no TLS. Raises ConfigurationError."""
    if config.tls is Tls.NONE:
        return None
    context = RelayContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies certificate and host name
    try:
        if config.ca_file:
            context.load_verify_locations(config.ca_file)
        else:
            context.load_default_certs()
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"relay {config.name}: ca_file: {config.ca_file}: {error}") from None
    context.minimum_version = _VERSIONS[config.tls_min]
    if config.tls_max:
        context.maximum_version = _VERSIONS[config.tls_max]
    if config.ciphers:
        try:
            context.set_ciphers(config.ciphers)
        except ssl.SSLError:
            raise ConfigurationError(
                f"relay {config.name}: ciphers: OpenSSL knows no cipher in {config.ciphers!r}"
            ) from None
    return context


# --- what a certificate says ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Security:
    """What a TLS connection is secured by. `days_left`: until the certificate expires."""

    version: str
    cipher: str
    subject: str
    issuer: str
    names: tuple[str, ...]
    days_left: float

    def __str__(self) -> str:
        names = ", ".join(self.names[:5]) + (f" and {len(self.names) - 5} more" if len(self.names) > 5 else "")
        return (
            f"{self.version} {self.cipher}; certificate of {self.subject or 'nobody by name'} for {names}, "
            f"by {self.issuer}, {self.days_left:.0f} days left"
        )


def security_of(connection: ssl.SSLObject, now: int) -> Security:
    """Of a connection that was verified; `now` is in milliseconds since the epoch."""
    certificate: Mapping[str, Any] = connection.getpeercert() or {}
    expires = ssl.cert_time_to_seconds(str(certificate["notAfter"])) if "notAfter" in certificate else 0
    cipher = connection.cipher()
    return Security(
        connection.version() or "",
        cipher[0] if cipher else "",
        _name(certificate.get("subject", ())),
        _name(certificate.get("issuer", ())),
        tuple(str(value) for _, value in certificate.get("subjectAltName", ())),
        (expires - now / 1000) / _DAY,
    )


def _name(parts: Any) -> str:
    """Of a distinguished name (RFC 5280 4.1.2.4) what a person calls it."""
    known = {key: value for part in parts for key, value in part}
    words = (known.get("organizationName"), known.get("commonName"))
    return " ".join(dict.fromkeys(str(word) for word in words if word))


# --- what a failed handshake is about ---------------------------------------------------------------------------------

# X509_V_ERR_* of openssl/x509_vfy.h
_BY_VERIFY_CODE = {
    9: Cause.CERTIFICATE_NOT_YET_VALID,
    10: Cause.CERTIFICATE_EXPIRED,
    18: Cause.CERTIFICATE_SELF_SIGNED,
    19: Cause.CERTIFICATE_ISSUER,  # the chain ends in an authority that is not known here
    20: Cause.CERTIFICATE_ISSUER,
    21: Cause.CERTIFICATE_ISSUER,
    62: Cause.CERTIFICATE_NAME,
    64: Cause.CERTIFICATE_NAME,  # the address, where the host is one
}
# OpenSSL's names of reasons; one is enough
_BY_REASON = (
    (("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"), Cause.NO_TLS),
    (("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE", "VERSION_TOO_LOW"), Cause.TLS_VERSION),
    (("HANDSHAKE_FAILURE", "NO_CIPHER", "INSUFFICIENT_SECURITY", "KEY_TOO_SMALL"), Cause.TLS_CIPHERS),
    (("EOF", "UNEXPECTED"), Cause.TLS_BROKEN_OFF),
)


def cause_of(error: ssl.SSLError) -> Cause:
    """What a handshake failed for."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _BY_VERIFY_CODE.get(error.verify_code, Cause.CERTIFICATE_OTHER)
    reason = f"{error.reason or ''} {error}".upper().replace(" ", "_")
    for words, cause in _BY_REASON:
        if any(word in reason for word in words):
            return cause
    return Cause.TLS_OTHER


def words_of(error: ssl.SSLError) -> str:
    """The error without OpenSSL's packaging: `[SSL: NAME] words (_ssl.c:1006)`."""
    text = getattr(error, "verify_message", "") or error.reason or str(error)
    return str(text).replace("_", " ").strip().rstrip(".")
