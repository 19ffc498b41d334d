"""DKIM keys: a private key with its domain and selector, and the ring that tells which keys sign for a sender.

Every key that is valid at the time of signing signs: an RSA and an Ed25519 key side by side make a double signature
(RFC 8463 3), and a selector is rotated by ending one key at the moment when the next begins.
"""

import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

LEAST_RSA_BITS = 2048  # RFC 8301 3.2: signers SHOULD use at least 2048
MOST_RSA_BITS = 4096  # RFC 8301 3.2: verifiers must know no more
_SELECTOR = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_TEXT_STRING = 255  # octets of one character-string of a TXT record (RFC 1035 3.3)


@dataclass(frozen=True, slots=True)
class DkimKey:
    """One private key. `since` and `until` (ms) bound the times at which it signs; None: no bound."""

    domain: str  # A-labels, lower case
    selector: str
    private: RSAPrivateKey | Ed25519PrivateKey
    since: int | None = None
    until: int | None = None

    @property
    def algorithm(self) -> str:
        """`a=` of the signature (RFC 6376 3.3, RFC 8463 3)."""
        return "rsa-sha256" if isinstance(self.private, RSAPrivateKey) else "ed25519-sha256"

    @property
    def label(self) -> str:
        """`selector._domainkey.example.com (rsa-sha256)`: what logs and answers say."""
        return f"{self.host} ({self.algorithm})"

    @property
    def host(self) -> str:
        """The name of the DNS record that holds the public key (RFC 6376 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def record(self) -> str:
        """The text of that record (RFC 6376 3.6.1, RFC 8463 4)."""
        public = self.private.public_key()
        if isinstance(self.private, RSAPrivateKey):
            raw = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            return f"v=DKIM1; k=rsa; p={_base64(raw)}"
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return f"v=DKIM1; k=ed25519; p={_base64(raw)}"

    def valid_at(self, at: int) -> bool:
        """Whether it signs messages of that time (ms)."""
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)

    def sign(self, data: bytes) -> bytes:
        """The raw signature of `data` (RFC 6376 3.3.1 and 3.7; RFC 8463 3 signs the SHA-256 of it)."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self.private.sign(hashlib.sha256(data).digest())


class DkimRing:
    """All keys of a process."""

    def __init__(self, keys: Sequence[DkimKey] = (), subdomains: Sequence[str] = ()) -> None:
        """`subdomains`: domains whose keys sign for their subdomains too."""
        self.keys = tuple(keys)
        self._by_domain: dict[str, list[DkimKey]] = {}
        for key in keys:
            self._by_domain.setdefault(key.domain, []).append(key)
        self._subdomains = frozenset(subdomains)

    def for_sender(self, email: str, at: int) -> tuple[DkimKey, ...]:
        """The keys that sign for this From address at that time (ms); empty: the message goes unsigned."""
        return tuple(key for key in self._of(email) if key.valid_at(at))

    def knows(self, email: str) -> bool:
        """Whether there are keys for this From address, valid at some time."""
        return bool(self._of(email))

    def gaps(self, now: int) -> list[tuple[str, int]]:
        """(domain, since when in ms) for each time from `now` on at which a domain has keys and none of them is valid."""
        found: list[tuple[str, int]] = []
        for domain, keys in self._by_domain.items():
            moments = [now, *(key.until for key in keys if key.until is not None and key.until > now)]
            found += [(domain, at) for at in sorted(set(moments)) if not any(key.valid_at(at) for key in keys)]
        return found

    def _of(self, email: str) -> Sequence[DkimKey]:
        if not self._by_domain:
            return ()
        domain = email.rpartition("@")[2].lower()
        keys = self._by_domain.get(domain)
        while keys is None and "." in domain:
            domain = domain.partition(".")[2]
            keys = self._by_domain.get(domain) if domain in self._subdomains else None
        return keys or ()


def is_selector(text: str) -> bool:
    """RFC 6376 3.1: labels of a domain name."""
    return len(text) <= 63 and _SELECTOR.fullmatch(text) is not None


def load_private(pem: bytes) -> RSAPrivateKey | Ed25519PrivateKey:
    """A private key in PEM (PKCS #8, PKCS #1). Raises ValueError that says what is wrong and shows nothing of it."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError:
        raise ValueError("is encrypted; give the key without a passphrase, readable by the service alone") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is no private key in PEM") from None
    if isinstance(key, Ed25519PrivateKey):
        return key
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("is neither an RSA nor an Ed25519 key")
    if not LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS:
        raise ValueError(f"has {key.key_size} bits; RSA keys have {LEAST_RSA_BITS} to {MOST_RSA_BITS} (RFC 8301 3.2)")
    return key


def generate(kind: str) -> bytes:
    """A fresh private key in PEM (PKCS #8): `rsa` with 2048 bits, or `ed25519`."""
    private = Ed25519PrivateKey.generate() if kind == "ed25519" else generate_private_key(65537, LEAST_RSA_BITS)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def zone_line(key: DkimKey) -> str:
    """The record as a line of a zone file, its text in strings that fit."""
    text = key.record
    parts = [f'"{text[at : at + _TEXT_STRING]}"' for at in range(0, len(text), _TEXT_STRING)]
    return f"{key.host}. IN TXT ( {' '.join(parts)} )"


def _base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode("ascii")
