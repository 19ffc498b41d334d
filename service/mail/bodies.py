"""Leaf parts of a message: text in the smallest fitting transfer encoding (RFC 2045), attachments in base64."""

import binascii
import re
from mimetypes import MimeTypes

import pybase64

from service.errors import FieldProblem
from service.mail.address import BIDI, FORBIDDEN
from service.mail.draft import Alternative, Attachment
from service.mail.headers import parameters

_LINE = 76  # RFC 2045 6.7 and 6.8
_SEVEN_BIT = re.compile(r"[\t\n\x20-\x7e]*")
_NEWLINES = re.compile(r"\r\n|\r|\n")
_TYPE = re.compile(
    r"(?P<type>[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64})"
    r"(?P<parameters>(?:\s*;\s*[a-z0-9!#$&^_.+-]+=(?:[a-z0-9!#$%&'*+.^_`{|}~-]+|\"[^\"\\\x00-\x1f\x7f]*\"))*)",
    re.I,
)
_CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,200}(?:@[A-Za-z0-9.-]{1,200})?")
_TYPES = MimeTypes(filenames=())  # the table of the standard library only: no file of this machine is read
_MAX_NAME = 255  # characters


def text_part(subtype: str, text: str) -> tuple[str, bytes]:
    """Header fields and body of a text part. Line ends become CRLF."""
    normal = _NEWLINES.sub("\n", text) if "\r" in text else text
    if normal.isascii() and _SEVEN_BIT.fullmatch(normal) and not _long_line(normal):
        return _text_fields(subtype, "7bit"), normal.replace("\n", "\r\n").encode()
    raw = normal.replace("\n", "\r\n").encode()
    if _mostly_ascii(raw):
        return _text_fields(subtype, "quoted-printable"), quoted_printable(normal)
    return _text_fields(subtype, "base64"), base64_lines(raw)


def _text_fields(subtype: str, encoding: str) -> str:
    return f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n"


def _long_line(text: str) -> bool:
    return len(text) > 990 and any(len(line) > 990 for line in text.split("\n"))


def _mostly_ascii(raw: bytes) -> bool:
    """Whether quoted-printable (3 octets for each that is not ASCII) is smaller than base64 (4/3 for all)."""
    other = len(raw) - len(raw.translate(None, _NOT_ASCII))
    return other * 6 < len(raw)


_NOT_ASCII = bytes(range(128, 256))


def quoted_printable(text: str) -> bytes:
    """RFC 2045 6.7, with CRLF line ends. `text` has LF line ends."""
    encoded = binascii.b2a_qp(text.encode(), quotetabs=False, istext=True)
    # a line that begins with a dot or "From " is legal, but old relays damage it
    if b"\n." in encoded or b"\nFrom " in encoded or encoded.startswith((b".", b"From ")):
        encoded = _rewrap(_FROM.sub(b"=46rom ", _DOT.sub(b"=2E", encoded)))
    return encoded.replace(b"\n", b"\r\n")


_DOT, _FROM = re.compile(rb"(?m)^\."), re.compile(rb"(?m)^From ")


def _rewrap(encoded: bytes) -> bytes:
    """Escaping a first character may have made a line longer than 76."""
    if all(len(line) <= _LINE for line in encoded.split(b"\n")):
        return encoded
    lines: list[bytes] = []
    for line in encoded.split(b"\n"):
        while len(line) > _LINE:
            cut = _LINE - 1
            while line[cut - 1 : cut] == b"=" or line[cut - 2 : cut - 1] == b"=":
                cut -= 1
            lines.append(line[:cut] + b"=")
            line = line[cut:]
        lines.append(line)
    return b"\n".join(lines)


def base64_lines(raw: bytes) -> bytes:
    """RFC 2045 6.8: base64 in lines of 76, each ended by CRLF; two passes over memory, the second for the CR."""
    return pybase64.encodebytes(raw).replace(b"\n", b"\r\n")


# --- attachments ------------------------------------------------------------------------------------------------


def check_attachment(attachment: Attachment, pointer: str) -> list[FieldProblem]:
    """Every fault of one attachment."""
    problems: list[FieldProblem] = []
    if FORBIDDEN.search(attachment.filename):
        problems.append(
            FieldProblem(f"{pointer}/filename", "control_character", "the file name holds a control character")
        )
    elif not clean_filename(attachment.filename):
        problems.append(FieldProblem(f"{pointer}/filename", "invalid_filename", "the file name is empty"))
    if attachment.content_type is not None:
        problems += _check_type(attachment.content_type, f"{pointer}/content_type")
    if attachment.content_id is not None and _CONTENT_ID.fullmatch(attachment.content_id) is None:
        detail = "must be letters, digits and dots, like `logo` or `logo@example.com`, without angle brackets"
        problems.append(FieldProblem(f"{pointer}/content_id", "invalid_content_id", detail))
    return problems


def check_alternative(alternative: Alternative, pointer: str) -> list[FieldProblem]:
    """Every fault of one alternative."""
    found = _TYPE.fullmatch(alternative.content_type)
    kind = found["type"].lower() if found else ""
    if not kind.startswith("text/") or (found and found["parameters"]) or kind in {"text/plain", "text/html"}:
        detail = "must be another text type than plain and html, without parameters, such as `text/markdown`"
        return [FieldProblem(f"{pointer}/content_type", "invalid_content_type", detail)]
    return []


def _check_type(value: str, pointer: str) -> list[FieldProblem]:
    found = _TYPE.fullmatch(value)
    if found is None:
        return [FieldProblem(pointer, "invalid_content_type", "must be a media type such as `application/pdf`")]
    if found["type"].lower().startswith(("multipart/", "message/")):
        return [FieldProblem(pointer, "invalid_content_type", "multipart/* and message/* can't be attached")]
    return []


def clean_filename(name: str) -> str:
    """The last path component, without bidirectional controls, at most 255 characters."""
    bare = BIDI.sub("", name).replace("\\", "/").rstrip("/").rpartition("/")[2].strip()
    if bare in {".", ".."}:
        return ""
    if len(bare) <= _MAX_NAME:
        return bare
    stem, dot, extension = bare.rpartition(".")
    return stem[: _MAX_NAME - len(extension) - 1] + dot + extension if dot and len(extension) < 20 else bare[:_MAX_NAME]


def guess_type(filename: str) -> str:
    """A media type by the file name's extension."""
    guessed, encoding = _TYPES.guess_type(filename, strict=False)
    if guessed is None or encoding is not None or guessed.startswith(("multipart/", "message/")):
        return "application/octet-stream"
    return guessed


def attachment_part(attachment: Attachment, filename: str) -> tuple[str, bytes]:
    """Header fields and base64 body of an attachment."""
    content_type = attachment.content_type or guess_type(filename)
    found = _TYPE.fullmatch(content_type)
    assert found is not None
    given = found["parameters"].strip(" ;")
    fields = f"Content-Type: {found['type'].lower()}"
    fields += f";\r\n {given}" if given else ""
    if "name=" not in given.lower():
        fields += name_parameter("name", filename)
    fields += "\r\nContent-Transfer-Encoding: base64\r\n"
    fields += f"Content-Disposition: {attachment.disposition}" + filename_parameter(filename) + "\r\n"
    if attachment.content_id is not None:
        fields += f"Content-ID: <{attachment.content_id}>\r\n"
    return fields, base64_lines(attachment.content)


def name_parameter(name: str, value: str) -> str:
    """`name=` for old readers: an encoded word inside quotes, which QQ, 163 and Foxmail decode (against RFC 2047 5)."""
    if value.isascii():
        return parameters({name: value})
    encoded = binascii.b2a_base64(value.encode(), newline=False).decode()
    return parameters({name: f"=?UTF-8?B?{encoded}?="})


def filename_parameter(value: str) -> str:
    """`filename=`, or `filename*=` in percent encoding (RFC 2231 4), in continuations when long (RFC 2231 3)."""
    if value.isascii() and len(value) <= 60:
        return parameters({"filename": value})
    encoded = "".join(
        chr(octet)
        if chr(octet).isascii() and (chr(octet).isalnum() or chr(octet) in "!#$&+-.^_`|~")
        else f"%{octet:02X}"
        for octet in value.encode()
    )
    if len(encoded) <= 60:
        return f";\r\n filename*=UTF-8''{encoded}"
    pieces: list[str] = []
    while encoded:
        cut = min(60, len(encoded))
        while cut < len(encoded) and "%" in encoded[cut - 2 : cut]:
            cut -= 1
        pieces.append(encoded[:cut])
        encoded = encoded[cut:]
    marked = ["UTF-8''" + pieces[0], *pieces[1:]]
    return "".join(f";\r\n filename*{index}*={piece}" for index, piece in enumerate(marked))
