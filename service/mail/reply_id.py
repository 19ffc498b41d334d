"""The name by which a relay knows a message: read from the words of its reply to the content.

RFC 5321 4.2 leaves those words to the server, so what they look like is a table of forms that were seen, tried in order. What
no form knows is no name: a part of a sentence would match nothing at the provider. What the account's secret was
taken out of is no name either. The whole reply stays in the delivery log; this file judges nothing.
"""

import re
from dataclasses import dataclass

from service.mail.reply import MAX_TEXT

_WORD = 8  # characters of a name without a digit: what is shorter is a word, such as `queued as spam`
# Each quantifier is possessive or bounded by what follows, so a search costs its text's length, whatever that holds.
_NAME = r"([^\s<>()\[\]{};\"']{1,200}+)(?=[\s>);]|$)"


@dataclass(frozen=True, slots=True)
class Form:
    """How one kind of server says it: who does, where that can be read, and a pattern whose only group is the name."""

    who: str
    source: str
    pattern: re.Pattern[str]


def _form(who: str, source: str, pattern: str) -> Form:
    return Form(who, source, re.compile(pattern.replace("NAME", _NAME), re.IGNORECASE))


FORMS = (
    _form("Alibaba DirectMail", "replies of smtpdm.aliyun.com; EnvId of its API", r"\bqueued as freedom ###envid=NAME"),
    _form("Yandex", "replies of smtp.yandex.ru, older ones with `as`", r"\bqueued on \S{1,255}+(?: as)?+ NAME"),
    _form(
        "Postfix, and those that say it alike: SendGrid, Mailjet, Brevo, MailerSend, NetEase, QQ",
        "Postfix src/smtpd/smtpd.c; MailerSend help on SMTP relay; replies of the others",
        r"\bqueued as:?+ {1,2}+<?+NAME",
    ),
    _form(
        "Haraka",
        "Haraka connection.js: the uuid of the transaction",
        r"^message queued \(([0-9a-f]{8}-[0-9a-f-]{27}(?:\.\d{1,9}+)?+)\)",
    ),
    _form("Exim, IONOS, amavisd", "Exim src/receive.c; replies of the others", r"\b(?:ok,?+|completed:) id=NAME"),
    _form(
        "qmail", "qmail-smtpd.c, acceptmessage: seconds and the number of qmail-queue", r"^ok (\d{9,11}+ qp \d{1,10}+)"
    ),
    _form("Gmail", "replies of smtp.gmail.com: the time in seconds, then the name", r"^ok {1,2}+\d{9,11}+ NAME"),
    _form("Amazon SES", "SES developer guide, SMTP: the message id", r"^ok ([0-9a-f]{16}+-[0-9a-f-]{36}+-\d{6})$"),
    _form(
        "Microsoft 365, Outlook.com",
        "replies of smtp.office365.com: the Message-ID that it gave",
        r"^ok <NAME> \[hostname=",
    ),
    _form("Exchange", "replies of Exchange 2007 and later", r"^<NAME>[^<]{0,300}+(?<=queued mail for delivery)$"),
    _form(
        "Sendmail, OpenSMTPD",
        "Sendmail sendmail/srvrsmtp.c; OpenSMTPD smtp_session.c",
        r"^((?=[a-z-]{0,64}+\d)[0-9a-z-]{6,64}+) message accepted for delivery",
    ),
    _form(
        "Cisco Secure Email",
        "replies of IronPort appliances: the MID of its logs",
        r"^ok: {1,2}+message (\d{1,20}+) accepted",
    ),
    _form("Dovecot", "Dovecot src/lmtp: the session", r"^<[^<>\s]{0,320}+> NAME saved$"),
    _form("the capture relay", "service/capture/relay.py", r"^captured as NAME"),
)


def id_in(text: str) -> str | None:
    """The relay's name for a message from the text of its reply, without code and enhanced code; None where it tells none."""
    for form in FORMS:
        if (found := form.pattern.search(text)) is not None:
            return _name(found)
    return None


def _name(found: re.Match[str]) -> str | None:
    """None for a word of the sentence, and for what stands where a long reply was cut."""
    name = found[1].rstrip(".,:")
    whole = found.end(1) < MAX_TEXT
    return name if whole and (len(name) >= _WORD or any(each.isdigit() for each in name)) else None
