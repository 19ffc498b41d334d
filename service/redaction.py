"""What no log line may show: secrets, by the name they stand under and by their shape, and the people mail is for.

It is a net under code that logs no secret by itself: a library's warning, the text of an exception, a reply that a relay
quotes our words in. An address loses what stands before its `@` unless POSTROOM_LOG_ADDRESSES says otherwise; the domain
stays, because it tells where mail gets stuck and not to whom. Nothing here knows of loggers.
"""

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"
_NAMES = ("password", "passwd", "secret", "token", "authorization", "api_key", "private_key", "credential", "variables")
_DEEPEST = 8  # levels of a value; what lies below is written as its type

# shapes of secrets, wherever they stand in a text; a group named `kept` stays
_SHAPES = tuple(
    re.compile(shape, flags)
    for shape, flags in (
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S),
        (
            r"(?P<kept>\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{0,320}:)[^\s/@]{1,1024}(?=@)",
            re.I,
        ),  # RFC 3986 3.2.1: userinfo
        (r"(?P<kept>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{6,}", re.I),  # RFC 6750 2.1, RFC 7617 2
        (r"(?P<kept>\bAUTH\s+(?:PLAIN|LOGIN|XOAUTH2|OAUTHBEARER|CRAM-MD5)\s+)[A-Za-z0-9+/=]{4,}", re.I),  # RFC 4954 4
        (r"\bpr_[A-Za-z0-9_-]{16,}", 0),  # our API keys
        (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?", 0),  # RFC 7519 3: a JSON Web Token
        (
            r"(?P<kept>\b(?:access_token|refresh_token|client_secret|client_assertion|password|passwd|secret|api_key)"
            r"[\"']?\s{0,4}[=:]\s{0,4}[\"']?)[^\s\"'&,;]{4,}",
            re.I,
        ),
    )
)
# RFC 5321 4.1.2 loosely: whatever stands before an @ that a host follows
_ADDRESS = re.compile(
    r"(?:\"[^\"\s@]{1,64}(?: [^\"\s@]{1,64}){0,8}\"|[^\s<>\"'(),:;\[\]@/]{1,256})@(?=[^\s<>\"'(),:;\[\]@/]{1,255})"
)


def is_secret_name(name: str) -> bool:
    """Whether what stands under this name is never written."""
    return any(word in name.lower() for word in _NAMES)


def redact_text(text: str, *, addresses: bool = False) -> str:
    """`text` without what looks like a secret; and without local parts of addresses unless `addresses`."""
    for shape in _SHAPES:
        text = shape.sub(lambda found: (found.groupdict().get("kept") or "") + REDACTED, text)
    return text if addresses or "@" not in text else _ADDRESS.sub("[address]@", text)


def redact(value: Any, *, addresses: bool = False, depth: int = _DEEPEST) -> Any:
    """A value of a log line, of any shape, without secrets; text of unknown types is left to the one who writes it."""
    if isinstance(value, str):
        return redact_text(value, addresses=addresses)
    if value is None or isinstance(value, int | float):
        return value
    if depth == 0:
        return f"<{type(value).__name__}>"
    below = depth - 1
    if isinstance(value, Mapping):
        return {
            str(name): REDACTED if is_secret_name(str(name)) else redact(each, addresses=addresses, depth=below)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(each, addresses=addresses, depth=below) for each in value]
    return redact_text(str(value), addresses=addresses)
