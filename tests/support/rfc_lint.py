"""The rules of the RFCs that every composed message must keep, as a table, checked on the bytes.

Shares nothing with service/: neither the writer's code nor its constants. Stricter than the RFCs where we promise more:
no preamble or epilogue, encoded words inside quotes in the `name=` of Content-Type and nowhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.support import rfc_header, rfc_mime, rfc_words
from tests.support.rfc_entity import Faults, Message, parse


@dataclass(frozen=True)
class Rule:
    """One rule: a stable id, the clause, and a check that yields what is wrong."""

    id: str
    clause: str
    check: Callable[[Message], Faults]


RULES = (
    Rule("bare-line-end", "RFC 5321 2.3.8", rfc_header.bare_line_end),
    Rule("nul", "RFC 2045 2.7", rfc_header.nul),
    Rule("eight-bit", "RFC 5322 2.2", rfc_header.eight_bit),
    Rule("utf-8", "RFC 6532 3.1", rfc_header.utf8),
    Rule("line-998", "RFC 5322 2.1.1", rfc_header.line_998),
    Rule("ends-with-crlf", "RFC 5321 4.1.1.4", rfc_header.ends_with_crlf),
    Rule("header-end", "RFC 5322 2.1", rfc_header.header_end),
    Rule("fold-78", "RFC 5322 2.1.1", rfc_header.fold_78),
    Rule("fold-blank", "RFC 5322 3.2.2", rfc_header.fold_blank),
    Rule("field-name", "RFC 5322 2.2", rfc_header.field_name),
    Rule("once", "RFC 5322 3.6", rfc_header.once),
    Rule("required", "RFC 5322 3.6", rfc_header.required),
    Rule("never", "RFC 5322 3.6.3", rfc_header.never),
    Rule("date", "RFC 5322 3.3", rfc_header.date),
    Rule("message-id", "RFC 5322 3.6.4", rfc_header.message_id),
    Rule("references", "RFC 5322 3.6.4", rfc_header.references),
    Rule("from", "RFC 5322 3.6.2", rfc_header.single_mailbox),
    Rule("recipients", "RFC 5322 3.4", rfc_header.recipients),
    Rule("word-75", "RFC 2047 2", rfc_words.word_75),
    Rule("word-line-76", "RFC 2047 2", rfc_words.word_line_76),
    Rule("word-whole", "RFC 2047 5", rfc_words.word_whole),
    Rule("word-apart", "RFC 2047 5", rfc_words.word_apart),
    Rule("word-quoted", "RFC 2047 5", rfc_words.word_quoted),
    Rule("word-address", "RFC 2047 5", rfc_words.word_address),
    Rule("word-structured", "RFC 2047 5", rfc_words.word_structured),
    Rule("mime-version", "RFC 2045 4", rfc_mime.mime_version),
    Rule("content-type", "RFC 2045 5.1", rfc_mime.content_type),
    Rule("disposition", "RFC 2183 2", rfc_mime.disposition),
    Rule("parameters", "RFC 2231 3, 4", rfc_mime.parameter_syntax),
    Rule("encoding", "RFC 2045 6.1", rfc_mime.encoding),
    Rule("composite", "RFC 2045 6.4", rfc_mime.composite),
    Rule("boundary", "RFC 2046 5.1.1", rfc_mime.boundary),
    Rule("boundary-inside", "RFC 2046 5.1.1", rfc_mime.boundary_inside),
    Rule("boundary-closing", "RFC 2046 5.1.1", rfc_mime.boundary_closing),
    Rule("base64", "RFC 2045 6.8", rfc_mime.base64_body),
    Rule("quoted-printable", "RFC 2045 6.7", rfc_mime.quoted_printable_body),
    Rule("related", "RFC 2387 3.1", rfc_mime.related),
    Rule("content-id", "RFC 2045 7", rfc_mime.content_id),
    Rule("list-unsubscribe", "RFC 2369 2", rfc_mime.list_unsubscribe),
    Rule("one-click", "RFC 8058 3.1", rfc_mime.one_click),
)


def lint(raw: bytes, *, eai: bool = False) -> list[str]:
    """What is wrong, as `id (clause): detail`; empty when nothing is. `eai`: the message is sent with SMTPUTF8."""
    message = Message(raw, parse(raw), eai)
    return [f"{rule.id} ({rule.clause}): {fault}" for rule in RULES for fault in rule.check(message)]
