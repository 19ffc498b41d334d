"""Leaf parts of a message: text in the smallest fitting transfer encoding (RFC 2045), attachments in base64."""

import binascii
import io
import re
import struct
from functools import lru_cache
from mimetypes import MimeTypes

import pybase64

from service.errors import FieldProblem
from service.mail.address import BIDI, FORBIDDEN
from service.mail.draft import Alternative, Attachment
from service.mail.headers import ENCODED_WORD, encode_words, fold, parameters

_LINE = 76  # RFC 2045 6.7 and 6.8
_LONG_LINE = 990  # octets: RFC 5321 4.5.3.1.6 allows 1000 with CRLF
_SEVEN_BIT = bytes((9, 10, *range(32, 127)))  # what may stand in 7bit text: tab, line feed, printable ASCII
_NEWLINES = re.compile(rb"\r\n|\r|\n")
_PARAMETER = re.compile(r"([a-z0-9!#$&^_.+-]+)=([a-z0-9!#$%&'*+.^_`{|}~-]+|\"[ !#-\[\]-~]*\")", re.I)
_TYPE = re.compile(
    r"(?P<type>[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64})"
    rf"(?P<parameters>(?: *; *{_PARAMETER.pattern})*)",
    re.I,
)
_CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,200}(?:@[A-Za-z0-9.-]{1,200})?")
_TYPES = MimeTypes(filenames=())  # the table of the standard library only: no file of this machine is read
_MAX_NAME = 255  # characters
_MAX_TYPE = 250  # characters: a parameter fits a line
_PIECE = 60  # octets of a file name in percent encoding on one line
_PERCENT_FREE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`|~")  # RFC 2231 7


def text_part(subtype: str, text: str, octets: bytes | None = None) -> tuple[str, bytes]:
    """Header fields and body of a text part. Line ends become CRLF. octets: the text in UTF-8, where it is known."""
    raw = text.encode() if octets is None else octets
    characters = len(text)
    if b"\r" in raw:
        normal = _NEWLINES.sub(b"\n", raw)
        characters -= len(raw) - len(normal)
        raw = normal
    if _as_it_is(raw):
        return _text_fields(subtype, "7bit"), raw.replace(b"\n", b"\r\n")
    if _mostly_ascii(characters, len(raw)):
        return _text_fields(subtype, "quoted-printable"), quoted_printable(raw)
    return _text_fields(subtype, "base64"), base64_lines(raw.replace(b"\n", b"\r\n"))


@lru_cache(maxsize=64)
def _text_fields(subtype: str, encoding: str) -> str:
    content_type = fold("Content-Type", [f"text/{subtype};", "charset=utf-8"])
    return f"{content_type}Content-Transfer-Encoding: {encoding}\r\n"


def _as_it_is(raw: bytes) -> bool:
    """Whether it needs no encoding: each look runs in C, and texts may be long."""
    if not raw.isascii() or raw.translate(None, _SEVEN_BIT):
        return False
    if _has_long_line(raw):
        return False
    # a line such as our boundaries, and one that old relays change
    return b"--=_" not in raw and not raw.startswith(b"From ") and b"\nFrom " not in raw


def _has_long_line(raw: bytes) -> bool:
    """From the last end of a line within reach of one to the next such: it need not be looked at line by line."""
    at = 0
    while len(raw) - at > _LONG_LINE:
        end = raw.rfind(b"\n", at, at + _LONG_LINE + 1)
        if end < 0:
            return True
        at = end + 1
    return False


def _mostly_ascii(characters: int, octets: int) -> bool:
    """Whether quoted-printable (3 octets for each that is not ASCII) is smaller than base64 (4/3 for all).

    A character that is not ASCII has one to three octets more than one: about two thirds of what it is written with.
    """
    other = (octets - characters) * 3 / 2
    return other * 6 < octets


def quoted_printable(raw: bytes) -> bytes:
    """RFC 2045 6.7, with CRLF line ends. `raw` has LF line ends."""
    return b"\r\n".join([_line(each) if len(each) <= _KEPT else _encoded(each) for each in raw.split(b"\n")])


def _encoded(raw: bytes) -> bytes:
    """One line, broken where it is too long."""
    encoded = b"\n" + binascii.b2a_qp(raw, quotetabs=False, istext=True)
    # a line that begins with a dot or "From " is legal, but old relays damage it
    if b"\n." in encoded or b"\nFrom " in encoded:
        encoded = encoded.replace(b"\n.", b"\n=2E").replace(b"\nFrom ", b"\n=46rom ")
    lines = encoded[1:].split(b"\n")
    # the library counts white space at the end of a line wrongly, and escaping a first character adds two
    if max(map(len, lines)) > _LINE:
        lines = _rewrapped(lines)
    return b"\r\n".join(lines)


# most lines of a template's mails are the same in each of them
_KEPT = 400  # octets of a line that is kept
_line = lru_cache(maxsize=4096)(_encoded)


def _rewrapped(long: list[bytes]) -> list[bytes]:
    """Lines over 76 are broken once more, not inside of an escape (RFC 2045 6.7)."""
    lines: list[bytes] = []
    for line in long:
        while len(line) > _LINE:
            cut = _LINE - 1
            while line[cut - 1 : cut] == b"=" or line[cut - 2 : cut - 1] == b"=":
                cut -= 1
            lines.append(line[:cut] + b"=")
            line = line[cut:]
        lines.append(line)
    return lines


_LINES_AT_ONCE = 1024  # so much stays in the processor's cache between encoding, cutting and joining
_OCTETS_AT_ONCE = _LINES_AT_ONCE * _LINE // 4 * 3
_cut = struct.Struct(f"{_LINE}s" * _LINES_AT_ONCE).unpack


def base64_lines(raw: bytes) -> bytes:
    """RFC 2045 6.8: base64 in lines of 76, each ended by CRLF. Memory: the result, once."""
    whole = len(raw) - len(raw) % _OCTETS_AT_ONCE
    if whole == 0:
        return pybase64.encodebytes(raw).replace(b"\n", b"\r\n")
    view, out = memoryview(raw), io.BytesIO()
    for at in range(0, whole, _OCTETS_AT_ONCE):
        out.write(b"\r\n".join(_cut(pybase64.b64encode(view[at : at + _OCTETS_AT_ONCE]))))
        out.write(b"\r\n")
    out.write(pybase64.encodebytes(view[whole:]).replace(b"\n", b"\r\n"))
    return out.getvalue()


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
    content_id = attachment.content_id
    if content_id is not None and (_CONTENT_ID.fullmatch(content_id) is None or ENCODED_WORD.search(content_id)):
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
    if found is None or len(value) > _MAX_TYPE or ENCODED_WORD.search(value):
        return [FieldProblem(pointer, "invalid_content_type", "must be a media type such as `application/pdf`")]
    names = [name.lower() for name, _ in _PARAMETER.findall(found["parameters"])]
    if len(set(names)) < len(names):
        return [FieldProblem(pointer, "invalid_content_type", "holds a parameter twice")]
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


def in_utf8(content_type: str) -> str:
    """A text type with its charset, when it names none (RFC 2046 4.1.2: else readers take it for US-ASCII)."""
    is_text = content_type.lower().startswith("text/")
    return f"{content_type}; charset=utf-8" if is_text and "charset=" not in content_type.lower() else content_type


def attachment_part(attachment: Attachment, filename: str) -> tuple[str, bytes]:
    """Header fields and base64 body of an attachment."""
    content_type = attachment.content_type or guess_type(filename)
    found = _TYPE.fullmatch(content_type)
    assert found is not None
    # `name` is always ours: clean, and the same as in Content-Disposition
    given = [each for each in _PARAMETER.findall(found["parameters"]) if each[0].lower() != "name"]
    fields = f"Content-Type: {found['type'].lower()}"
    fields += "".join(f";\r\n {name}={value}" for name, value in given)
    fields += name_parameter("name", filename)
    fields += "\r\nContent-Transfer-Encoding: base64\r\n"
    fields += f"Content-Disposition: {attachment.disposition}" + filename_parameter(filename) + "\r\n"
    if attachment.content_id is not None:
        fields += f"Content-ID: <{attachment.content_id}>\r\n"
    return fields, base64_lines(attachment.content)


def name_parameter(name: str, value: str) -> str:
    """`name=` for old readers: encoded words inside quotes, which QQ, 163 and Foxmail decode (against RFC 2047 5)."""
    if value.isascii() and not ENCODED_WORD.search(value):
        return parameters({name: value})
    return parameters({name: "\r\n ".join(encode_words(value, f' {name}="'))})


def filename_parameter(value: str) -> str:
    """`filename=`, or `filename*=` in percent encoding (RFC 2231 4), in continuations when long (RFC 2231 3)."""
    if value.isascii() and len(value) <= _PIECE and not ENCODED_WORD.search(value):
        return parameters({"filename": value})
    pieces = [""]
    for character in value:  # a piece ends between characters: some readers decode each alone
        encoded = _percent(character)
        if len(pieces[-1]) + len(encoded) > _PIECE:
            pieces.append("")
        pieces[-1] += encoded
    pieces[0] = "UTF-8''" + pieces[0]
    if len(pieces) == 1:
        return f";\r\n filename*={pieces[0]}"
    return "".join(f";\r\n filename*{index}*={piece}" for index, piece in enumerate(pieces))


def _percent(character: str) -> str:
    return "".join(chr(octet) if octet in _PERCENT_FREE else f"%{octet:02X}" for octet in character.encode())
