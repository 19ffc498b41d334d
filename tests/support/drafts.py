"""Drafts for tests of the composer, and what it makes of them: gated, linted, and read by Python."""

import email
import email.policy
from email.message import EmailMessage
from typing import Any

from service.mail.address import parse_mailbox
from service.mail.compose import Composed, compose
from service.mail.draft import Draft
from service.mail.gate import inspect
from tests.support.rfc_lint import lint


def draft(**given: Any) -> Draft:
    """The message of the article, but for what is given."""
    values: dict[str, Any] = {
        "from_": parse_mailbox("zoucz <zouchengzhuo@163.com>", "#"),
        "to": (parse_mailbox("zoucz <405966530@qq.com>", "#"),),
        "subject": "测试SMTP发送邮件",
        "text": "这是一封测试邮件\n",
        "html": "<p>这是一封<b>测试</b>邮件</p>\n",
        "message_id": "01test@163.com",
        "date": 1_764_000_000_123,
        "boundary_seed": "01test",
    }
    return Draft(**{**values, **given})


def raw_of(made: Composed) -> bytes:
    """The bytes, gated and linted."""
    inspect(made)
    raw = b"".join(made.segments)
    assert lint(raw, eai=made.smtputf8) == []
    assert made.size == len(raw)
    return raw


def composed(**given: Any) -> tuple[Composed, EmailMessage]:
    """What was composed, and what Python's newer parser reads in it."""
    made = compose(draft(**given))
    message = email.message_from_bytes(raw_of(made), policy=email.policy.SMTPUTF8)
    assert isinstance(message, EmailMessage)
    return made, message


def head_of(**given: Any) -> list[bytes]:
    """The lines of the message header."""
    return raw_of(compose(draft(**given))).partition(b"\r\n\r\n")[0].split(b"\r\n")


def body_of(message: EmailMessage, kind: str) -> str:
    """The text of this kind with LF line ends."""
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def tree_of(message: EmailMessage) -> list[str]:
    """The media types of the message and its parts."""
    return [part.get_content_type() for part in message.walk()]
