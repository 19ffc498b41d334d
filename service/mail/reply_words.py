"""The words of a reply that may be judged: without the addresses in it, and told apart from those it quotes.

A relay that asks the recipient's host before it answers RCPT puts that host's words in its own reply. Whoever runs the
host chose them, so they may speak of the recipient and never of the relay. Which rows read which words is
mail/outcome's; this file knows no verdict.
"""

import re
from dataclasses import dataclass

_BRACKETED = re.compile(r"<[^<>]*>")
_READ = 500  # characters of a reply that are matched: what matters is said first, and a pattern may look at each twice
_QUOTES = re.compile(
    r"\bsaid:"  # Postfix: host mx.example.org[192.0.2.1] said: 550 ... (in reply to RCPT TO command)
    r"|\(in reply to\b"
    r"|\brefused to talk to me:"
    r"|\b(?:undeliverable|unverified) address:"  # Postfix ADDRESS_VERIFICATION_README: the probe's own outcome
    r"|\bcall(?:out|back)\b"  # Exim, callout verification
    r"|\bCalled:|\bResponse:"
    r"|\bremote (?:host|server|system|MTA) (?:said|says|returned|answered|replied|responded)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Words:
    """`every` word without addresses, and `own`: those before the first that another host said."""

    every: str
    own: str


def words_of(text: str) -> Words:
    """A reply's text without the addresses in it: `user.unknown@example.org` says nothing of an unknown user."""
    every = _without_addresses(text)[:_READ]
    quote = _QUOTES.search(every)
    return Words(every, every if quote is None else every[: quote.start()])


def _without_addresses(text: str) -> str:
    if "<" not in text and "@" not in text:
        return text
    return " ".join("<>" if "@" in word else word for word in _BRACKETED.sub("<>", text).split())
