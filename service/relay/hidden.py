"""What of a login no reply may show again: the secret or token, and the forms in which it goes over the wire.

Some relays quote the line that they refuse, at once or in a later reply, and a reply is kept in the delivery log, in the
events of its relay, in alerts. So every text of a peer goes through `take_out` as it is read, before it is cut, judged or
kept. In a refusal pieces of long words count as well, since a relay may cut what it quotes or break it into lines. It
knows no session.
"""

import re
from base64 import b64encode
from collections.abc import Iterator

from service.redaction import REDACTED
from service.relay.logins import oauthbearer, plain, xoauth2

_LEAST = 4  # characters: what is shorter is found in everything, and guessed as soon
_PIECE = 12  # characters of a longer word that give it away
_MOST = 24  # words; the newest, where tokens follow each other
_RUN = re.compile(rf"\S{{{_PIECE},}}")


def forms_of(user: str, secret: str) -> Iterator[str]:
    """The secret or token of an account, and what is made of it for a login (RFC 4616, RFC 4954 4, RFC 7628 3.1)."""
    yield secret
    yield b64encode(secret.encode()).decode()
    for line in (list(plain(user, secret))[-1], next(xoauth2(user, secret)), next(oauthbearer(user, secret))):
        yield line.split()[-1].decode()


class Hidden:
    """The words of one relay's account that are to be hidden; sessions add those that they send."""

    def __init__(self) -> None:
        self._newest: dict[str, None] = {}
        self._words: tuple[str, ...] = ()  # longest first: one may be part of another
        self._pieces: frozenset[str] = frozenset()

    def add(self, *words: str) -> None:
        """Hide these too; their padding of base64 aside, which says nothing and may be left off."""
        before = set(self._newest)
        for word in (word.rstrip("=") for word in words):
            if len(word) >= _LEAST:
                self._newest.pop(word, None)
                self._newest[word] = None
        while len(self._newest) > _MOST:
            del self._newest[next(iter(self._newest))]
        if before != self._newest.keys():
            self._words = tuple(sorted(self._newest, key=len, reverse=True))
            self._pieces = frozenset(piece for word in self._words for piece in _pieces_of(word))

    def take_out(self, text: str, *, pieces: bool = True) -> str:
        """`text` without them, nor `pieces` of them, which costs microseconds more."""
        for word in self._words:
            if word in text:
                text = text.replace(word, REDACTED)
        return _RUN.sub(self._shown, text) if pieces and self._pieces else text

    def _shown(self, run: re.Match[str]) -> str:
        """A run of characters, unless a part of it gives a word away."""
        return run[0] if self._pieces.isdisjoint(_pieces_of(run[0])) else REDACTED


def _pieces_of(word: str) -> Iterator[str]:
    """All pieces of it that are long enough; none when it is shorter."""
    return (word[at : at + _PIECE] for at in range(len(word) - _PIECE + 1))
