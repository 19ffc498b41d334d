"""The envelope: reverse-path and forward-paths (RFC 5321 section 2.3.1), never derived from header fields."""

import re
from dataclasses import dataclass

_UNFIT = re.compile(r"[\x00-\x20+=\\\x7f]")  # RFC 6533 3: written as \x{...} in utf-8-addr-unitext


@dataclass(frozen=True, slots=True)
class Dsn:
    """Which delivery status notifications later relays are asked for (RFC 3461); they go to the reverse-path."""

    notify: tuple[
        str, ...
    ] = ()  # of NOTIFY, each time the same for all recipients; empty: what relays do by themselves
    whole: bool | None = None  # RET: the whole message or its header only; None: as the relay likes
    id: str = ""  # ENVID: comes back in the notification as Original-Envelope-Id (RFC 3464 2.2.1)


@dataclass(slots=True)
class Envelope:
    """What goes on the wire around a message. Addresses are in wire form, byte for byte as stored."""

    reverse_path: str
    forward_paths: tuple[str, ...]
    size: int  # octets of the message, for SIZE= (RFC 1870)
    smtputf8: bool = False  # RFC 6531: MAIL FROM with SMTPUTF8 and BODY=8BITMIME
    dsn: Dsn | None = None  # said only to a relay that offers DSN


def xtext(text: str) -> str:
    """Text as a parameter's value (RFC 3461 section 4): printable ASCII without + and =, all else as +XX by octet."""
    return "".join(
        chr(octet) if 33 <= octet <= 126 and octet not in b"+=" else f"+{octet:02X}" for octet in text.encode()
    )


def original_recipient(address: str) -> str:
    """ORCPT's value (RFC 3461 4.2; RFC 6533 3 for an address that is not ASCII)."""
    if address.isascii():
        return f"rfc822;{xtext(address)}"
    return "utf-8;" + _UNFIT.sub(lambda found: rf"\x{{{ord(found[0]):02X}}}", address)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a relay's EHLO reply said that decides which messages can go by it."""

    smtputf8: bool  # RFC 6531
    max_size: int | None  # octets, by SIZE (RFC 1870); None: no limit was told
