"""Rules of the RFCs that every composed message must keep, checked on the bytes by code that shares nothing with the writer."""

import re

_WORD = re.compile(r"=\?[^?\s]+\?[BQbq]\?[^?\s]*\?=")


def lint(raw: bytes, *, eai: bool = False) -> list[str]:
    """What is wrong; empty when nothing is."""
    faults: list[str] = []
    if raw.count(b"\n") != raw.count(b"\r\n") or raw.count(b"\r") != raw.count(b"\r\n"):
        faults.append("RFC 5321 2.3.8: bare CR or LF")
    if b"\0" in raw:
        faults.append("RFC 5322 2.2: NUL")
    if not eai and not raw.isascii():
        faults.append("RFC 5322 2.2: 8-bit octets")
    if any(len(line) > 998 for line in raw.split(b"\r\n")):
        faults.append("RFC 5322 2.1.1: a line over 998")
    if not raw.endswith(b"\r\n"):
        faults.append("RFC 5321 4.1.1.4: no CRLF at the end")
    head, mark, body = raw.partition(b"\r\n\r\n")
    if not mark:
        faults.append("RFC 5322 3.5: no empty line after the header")
    return faults + _header(head) + _multipart(head, body)


def _header(head: bytes) -> list[str]:
    faults: list[str] = []
    names: list[bytes] = []
    for line in head.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            if not line.strip():
                faults.append("RFC 5322 3.2.2: a folded line of white space only")
            continue
        name, colon, value = line.partition(b":")
        if not colon or re.fullmatch(rb"[!-9;-~]+", name) is None:
            faults.append(f"RFC 5322 2.2: no field: {line[:40]!r}")
        if value and not value.startswith(b" "):
            faults.append(f"no space after the colon of {name!r}")
        names.append(name.lower())
    return faults + _counts(names) + _words(head)


def _counts(names: list[bytes]) -> list[str]:
    once = (b"date", b"from", b"message-id", b"subject", b"mime-version", b"content-type")
    at_most = (b"to", b"cc", b"reply-to", b"sender", b"in-reply-to", b"references")
    faults = [f"RFC 5322 3.6: {name.decode()} does not stand once" for name in once if names.count(name) != 1]
    faults += [f"RFC 5322 3.6: {name.decode()} more than once" for name in at_most if names.count(name) > 1]
    return faults + ["Bcc is written"] * (b"bcc" in names)


def _words(head: bytes) -> list[str]:
    words = _WORD.findall(head.decode("utf-8", "replace"))
    faults = [f"RFC 2047 2: an encoded word of {len(word)}" for word in words if len(word) > 75]
    if re.search(rb"<=\?|=\?[^?]*\?[bB]\?[^?]*\?=@", head):
        faults.append("RFC 2047 5: an encoded word inside an address")
    return faults


def _multipart(head: bytes, body: bytes) -> list[str]:
    found = re.search(rb'boundary="([^"]+)"', head)
    if found is None:
        return []
    boundary = found[1]
    faults = [] if len(boundary) <= 70 else ["RFC 2046 5.1.1: a boundary over 70"]
    if not body.rstrip().endswith(b"--" + boundary + b"--"):
        faults.append("RFC 2046 5.1.1: no closing boundary")
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:-1]:
        inner, mark, content = part.lstrip(b"\r\n").partition(b"\r\n\r\n")
        if not mark:
            faults.append("RFC 2046 5.1: a part without header end")
        if b"base64" in inner and any(len(line) > 76 for line in content.split(b"\r\n")):
            faults.append("RFC 2045 6.8: a base64 line over 76")
        if b"quoted-printable" in inner and any(len(line) > 76 for line in content.split(b"\r\n")):
            faults.append("RFC 2045 6.7: a quoted-printable line over 76")
        faults += _multipart(inner, content)
    return faults
