"""Rules for lines and for the fields of RFC 5322: what rfc_lint's table names."""

import re
from datetime import UTC, datetime

from tests.support.rfc_entity import QUOTED, Faults, Message


def bare_line_end(message: Message) -> Faults:
    ends = message.raw.count(b"\r\n")
    if message.raw.count(b"\n") != ends or message.raw.count(b"\r") != ends:
        yield "a bare CR or LF"


def nul(message: Message) -> Faults:
    if b"\0" in message.raw:
        yield "NUL"


def eight_bit(message: Message) -> Faults:
    if not message.eai and not message.raw.isascii():
        yield "an octet over 127"


def utf8(message: Message) -> Faults:
    for each in message.every_field():
        try:
            b"".join(each.lines).decode()
        except UnicodeDecodeError:
            yield f"{each.name} is no UTF-8"


def line_998(message: Message) -> Faults:
    if (longest := max(map(len, message.raw.split(b"\r\n")))) > 998:
        yield f"a line of {longest}"


def ends_with_crlf(message: Message) -> Faults:
    if not message.raw.endswith(b"\r\n"):
        yield "no CRLF at the end"


def header_end(message: Message) -> Faults:
    if b"\r\n\r\n" not in message.raw or not all(entity.ended for entity in message.root.walk()):
        yield "no empty line after a header"


def fold_78(message: Message) -> Faults:
    for each in message.every_field():
        for index, line in enumerate(each.lines):
            text = line.decode("utf-8", "replace")
            if len(text) <= 78:
                continue
            content = text.partition(":")[2] if index == 0 else text
            if each.name.startswith("content-"):
                content = QUOTED.sub("x", content)  # many readers keep a line end inside a quoted parameter
            if re.search(r"\S[ \t]+\S", content):
                yield f"a line of {len(text)} in {each.name} that could be folded"


def fold_blank(message: Message) -> Faults:
    for each in message.every_field():
        if any(not line.strip() for line in each.lines[1:]):
            yield f"a folded line of white space only in {each.name}"


def field_name(message: Message) -> Faults:
    for each in message.every_field():
        name, colon, rest = each.lines[0].partition(b":")
        if not colon or re.fullmatch(rb"[!-9;-~]+", name) is None:
            yield f"no field: {each.lines[0][:40]!r}"
        elif rest and not rest.startswith(b" "):
            yield f"no space after the colon of {each.name}"


_ONCE = {"date", "from", "sender", "reply-to", "to", "cc", "message-id", "in-reply-to", "references", "subject",
         "mime-version", "content-type", "content-transfer-encoding", "content-disposition", "content-id",
         "list-unsubscribe", "list-unsubscribe-post", "list-id", "feedback-id", "auto-submitted", "importance"}  # fmt: skip


def once(message: Message) -> Faults:
    for entity in message.root.walk():
        names = [each.name for each in entity.fields]
        yield from (f"{name} stands {names.count(name)} times" for name in sorted(_ONCE) if names.count(name) > 1)


def required(message: Message) -> Faults:
    names = {each.name for each in message.fields()}
    needed = ("date", "from", "message-id", "subject", "mime-version", "content-type")
    yield from (f"no {name}" for name in needed if name not in names)
    if not names & {"to", "cc"}:
        yield "neither To nor Cc"


def never(message: Message) -> Faults:
    for each in message.every_field():
        if each.name in {"bcc", "return-path", "received"} or each.name.startswith("resent-"):
            yield f"{each.name} is written"


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DATE = re.compile(r"(?P<day>\w{3}), (?P<rest>\d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d [+-](?:0\d|1[0-4])[0-5]\d)")


def date(message: Message) -> Faults:
    for each in message.fields("date"):
        found = _DATE.fullmatch(each.value)
        try:
            at = datetime.strptime(found["rest"], "%d %b %Y %H:%M:%S %z") if found else None
        except ValueError:
            at = None
        if at is None or found is None or _DAYS[at.weekday()] != found["day"] or at < datetime(1970, 1, 1, tzinfo=UTC):
            yield f"no date-time: {each.value}"


_ATEXT = (
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]"  # over 127: RFC 6532 3.2; rule eight-bit refuses them elsewhere
)
_DOT_ATOM = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"
_ADDRESS = rf"{_DOT_ATOM}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
_PHRASE_WORD = rf'(?:{_ATEXT}+|"(?:[^"\\]|\\.)*")'
_MAILBOX = rf"(?:{_PHRASE_WORD}(?: {_PHRASE_WORD})* <{_ADDRESS}>|{_ADDRESS})"
_MAILBOXES = re.compile(rf"{_MAILBOX}(?:, {_MAILBOX})*")
_GROUP = "undisclosed-recipients:;"


def message_id(message: Message) -> Faults:
    for each in message.fields("message-id"):
        if re.fullmatch(rf"<{_DOT_ATOM}@{_DOT_ATOM}>", each.value) is None or not each.value.isascii():
            yield f"no msg-id: {each.value}"


def references(message: Message) -> Faults:
    for each in message.fields("in-reply-to", "references"):
        if re.fullmatch(r"<[!-;=?-~]+@[!-;=?-~]+>(?: <[!-;=?-~]+@[!-;=?-~]+>)*", each.value) is None:
            yield f"no msg-ids in {each.name}"


def single_mailbox(message: Message) -> Faults:
    for each in message.fields("from", "sender"):
        if re.fullmatch(_MAILBOX, each.value) is None:
            yield f"{each.name} is no single mailbox"


def recipients(message: Message) -> Faults:
    for each in message.fields("to", "cc", "reply-to"):
        if _MAILBOXES.fullmatch(each.value) is None and not (each.name == "to" and each.value == _GROUP):
            yield f"{each.name} is no list of mailboxes"
