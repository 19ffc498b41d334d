"""The login mechanisms, as dialogues: which lines go out, and what is made of a challenge. No sockets, no judgement.

A dialogue yields the lines to send, without their CRLF, and is given the text of each 334 that comes back. One that has
nothing more to say has ended. The prompts of LOGIN are never read: servers word them as they like.
"""

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator, Mapping

Dialogue = Generator[bytes, str, None]

_COMMAND = 512 - 2  # octets of a command line without its CRLF: RFC 5321 4.5.3.1.4


def plain(user: str, secret: str) -> Dialogue:
    """RFC 4616. What makes the command too long goes after the 334 instead (RFC 4954 4)."""
    response = b64encode(b"\0" + user.encode() + b"\0" + secret.encode())
    command = b"AUTH PLAIN " + response
    if len(command) <= _COMMAND:
        yield command
    else:
        yield b"AUTH PLAIN"
        yield response


def login(user: str, secret: str) -> Dialogue:
    """The user name goes out only when it was asked for: a server that takes none with the command would ask for it
    once more, and would be given the secret as a name, which it may write into its log."""
    yield b"AUTH LOGIN"
    yield b64encode(user.encode())
    yield b64encode(secret.encode())


def cram_md5(user: str, secret: str) -> Dialogue:
    """RFC 2195 2. Raises ValueError for a challenge that is no Base64."""
    text = yield b"AUTH CRAM-MD5"
    try:
        challenge = b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the challenge of CRAM-MD5 is no Base64") from None
    digest = hmac.new(secret.encode(), challenge, "md5").hexdigest()
    yield b64encode(f"{user} {digest}".encode())


def xoauth2(user: str, token: str) -> Dialogue:
    """Google's and Microsoft's XOAUTH2. A refusal comes as a 334 first; an empty line brings the 535."""
    yield b"AUTH XOAUTH2 " + b64encode(f"user={user}\x01auth=Bearer {token}\x01\x01".encode())
    yield b""


def oauthbearer(user: str, token: str) -> Dialogue:
    """RFC 7628 3.1. After a refusal a lone ^A is sent (3.2.3)."""
    name = user.replace("=", "=3D").replace(",", "=2C")  # RFC 5801 4: saslname
    yield b"AUTH OAUTHBEARER " + b64encode(f"n,a={name},\x01auth=Bearer {token}\x01\x01".encode())
    yield b64encode(b"\x01")


BY_SECRET: Mapping[str, Callable[[str, str], Dialogue]] = {"PLAIN": plain, "LOGIN": login, "CRAM-MD5": cram_md5}
BY_TOKEN: Mapping[str, Callable[[str, str], Dialogue]] = {"XOAUTH2": xoauth2, "OAUTHBEARER": oauthbearer}
MECHANISMS: Mapping[str, Callable[[str, str], Dialogue]] = {**BY_SECRET, **BY_TOKEN}


def refused_because(challenge: str) -> str:
    """The words of a token's refusal: the JSON in the 334 of XOAUTH2 and OAUTHBEARER (RFC 7628 3.2.2); or nothing."""
    try:
        text = b64decode(challenge.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return "".join(each for each in text if each.isprintable())[:300]
