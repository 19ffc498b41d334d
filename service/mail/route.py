"""The route of a message: account + the sender or pinned relay that decides which relays may carry it.

A route is the key by which the queue is read: the dispatcher asks only for routes that have an open relay, so a
million messages behind a paused relay cost the others nothing.
"""

from dataclasses import dataclass

_SEPARATOR = "|"


@dataclass(frozen=True, slots=True)
class Route:
    """`relay` is set when the request pinned one; `sender` when the sender's address limits the choice of relay."""

    account: str
    relay: str = ""
    sender: str = ""

    @property
    def key(self) -> str:
        """The stored form, e.g. `acme||news@acme.example`."""
        return _SEPARATOR.join((self.account, self.relay, self.sender))

    @classmethod
    def parse(cls, key: str) -> "Route":
        """Back from the stored form. Accounts and relay names hold no `|`; an address may, and comes last."""
        account, relay, sender = key.split(_SEPARATOR, 2)
        return cls(account, relay, sender)
