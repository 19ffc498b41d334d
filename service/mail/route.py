"""The route of a message: account + the sender or pinned relay that decides which relays may carry it, and its needs.

A route is the key by which the queue is read: the dispatcher asks only for routes that have an open relay, so a
million messages behind a paused relay cost the others nothing. What the message needs of a relay (mail/limits) and the
relays that refused it for another reason stand in it too, so that none of them is given it later, whatever becomes of
the configuration while it waits. A relay that refuses it only when it is to be sent (SIZE in its EHLO, 552 to MAIL) is
added then: every process that reads the queue knows it. So is its envelope's sender, once a relay has come to mind that.
"""

import re
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

_SEPARATOR = "|"
_REFUSED = "!"
_UNFIT = "~"
_ENVELOPE = "@"
_MARKS = _REFUSED + _UNFIT + _ENVELOPE
_NEED = re.compile(r"([+!~@])([^+!~@]+)")


@dataclass(frozen=True, slots=True)
class Route:
    """`relay` is set when the request pinned one; `sender` when the sender's address limits the choice of relay."""

    account: str
    relay: str = ""
    sender: str = ""
    # words of mail/limits, `!name` of each relay that refused it when it was accepted, `@address` of its envelope, quoted,
    # `~name` of each relay that refused it since
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The stored form, e.g. `acme|+cc+.exe!netease|news@acme.example`; most have no needs: `acme||`."""
        needs = "".join([word if word[0] in _MARKS else f"+{word}" for word in self.needs])
        return _SEPARATOR.join((self.account, self.relay + needs, self.sender))

    @classmethod
    def parse(cls, key: str) -> "Route":
        """Back from the stored form. Accounts, relay names and needs hold no `|`; an address may, and comes last."""
        return _parse(key)

    @property
    def unfit(self) -> tuple[str, ...]:
        """The relays that were to send it and can't."""
        return tuple(word[1:] for word in self.needs if word.startswith(_UNFIT))

    def without(self, name: str) -> "Route":
        """The route of the message once that relay, which was to send it, can't."""
        unfit = sorted({*self.unfit, name})
        return replace(self, needs=(*self.as_accepted().needs, *(_UNFIT + each for each in unfit)))

    def with_envelope(self, address: str) -> "Route":
        """The route of a message that tells its envelope's sender as well: some relay takes mail from its login only."""
        word = _ENVELOPE + urllib.parse.quote(address, safe="").replace(
            _UNFIT, "%7E"
        )  # RFC 3986 2.3: `~` is never quoted
        kept = [each for each in self.as_accepted().needs if not each.startswith(_ENVELOPE)]
        return replace(self, needs=(*kept, word, *(_UNFIT + each for each in self.unfit)))

    def as_accepted(self) -> "Route":
        """The route that it had before any relay was to send it."""
        return replace(self, needs=tuple(word for word in self.needs if not word.startswith(_UNFIT)))


@lru_cache(maxsize=4096)
def _parse(key: str) -> Route:
    account, middle, sender = key.split(_SEPARATOR, 2)
    marks = [middle.find(mark) for mark in f"+{_MARKS}" if mark in middle]
    at = min(marks, default=len(middle))
    needs = tuple((mark if mark in _MARKS else "") + word for mark, word in _NEED.findall(middle[at:]))
    return Route(account, middle[:at], sender, needs)


def ordered(words: Iterable[str], refused_by: Iterable[str]) -> tuple[str, ...]:
    """Needs in one order, so that equal ones are one route."""
    return (*sorted(set(words)), *(f"{_REFUSED}{name}" for name in sorted(set(refused_by))))


def refused_by(needs: Iterable[str], name: str) -> bool:
    """Whether that relay refused the message when it was accepted."""
    return f"{_REFUSED}{name}" in needs


def unfit_for(needs: Iterable[str], name: str) -> bool:
    """Whether that relay was to send the message and can't."""
    return f"{_UNFIT}{name}" in needs


def envelope_in(needs: Iterable[str]) -> str:
    """The sender of the envelope that has to be taken; empty where no relay has refused it."""
    return next((urllib.parse.unquote(word[1:]) for word in needs if word.startswith(_ENVELOPE)), "")
