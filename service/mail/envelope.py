"""The envelope: reverse-path and forward-paths (RFC 5321 section 2.3.1), never derived from header fields."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Envelope:
    """What goes on the wire around a message. Addresses are in wire form, byte for byte as stored."""

    reverse_path: str
    forward_paths: tuple[str, ...]
    size: int  # octets of the message, for SIZE= (RFC 1870)
    smtputf8: bool = False  # RFC 6531: MAIL FROM with SMTPUTF8 and BODY=8BITMIME


@dataclass(frozen=True, slots=True)
class Offer:
    """What a relay's EHLO reply said that decides which messages can go by it."""

    smtputf8: bool  # RFC 6531
    max_size: int | None  # octets, by SIZE (RFC 1870); None: no limit was told
