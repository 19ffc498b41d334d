"""Which relay of a claim carries a message now, to whom, and who is put off. Pure: quotas come read, nothing is written.

A relay that has used up a quota of its own ends its lanes, for this priority and those below; a recipient that a quota
of its own holds is put off, so that it stands in nobody's way, unless another relay of the claim can take it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.mail.lifecycle import OPEN, State, target
from service.mail.quota import Per
from service.store.quotas import Quotas, Share
from service.store.values import DueRecipient, Held, Settlement, Want

DOUBTED_FOR = (
    30_000  # ms: after which it is asked again whether a recipient is late, whose ttl is over by a doubted clock
)
_LOOK_AGAIN = 5000  # ms: after which a recipient is offered again to relays that were not asked this time


@dataclass(slots=True)
class Asked:
    """A want, and what is left of its limit."""

    want: Want
    left: int

    @property
    def narrow(self) -> bool:
        """Whether recipients or domains have quotas of their own there."""
        return any(quota.per is not Per.RELAY for quota in self.want.quotas)


def most_read(want: Want) -> int | None:
    """How many due recipients of a message to read: with one more than go at once it is known that there are more."""
    return None if want.max_recipients is None else want.max_recipients + 1


def moved_with(settlement: Settlement) -> int:
    """Who of a message goes to another route along with what an attempt held: those due by this time (ms).

    Where the attempt's own end there, nobody does: the rest are told each relay's reason by the way that is left to them.
    """
    return settlement.now if any(target(each.event) in OPEN for each in settlement.recipients) else 0


@dataclass(slots=True)
class Due:
    """A recipient that could be sent."""

    recipient: DueRecipient
    state: State
    key: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class PutOff:
    """A recipient that waits until `until` (ms) for the quota `by`."""

    due: Due
    until: int
    by: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Who carries it, to whom, and what that takes of quotas; `asked` None: nobody now."""

    asked: Asked | None
    due: list[Due]
    taken: str | None
    off: Sequence[PutOff]
    cut: bool  # some due recipients are left for another delivery


def choose(
    quotas: Quotas, everybody: Sequence[Asked], asked: Asked, priority: int, due: Sequence[Due]
) -> Choice | None:
    """The choice for one message that `asked` came upon. None: the relay itself is held, see `quotas.holds`."""
    keys = [each.key for each in due]
    off: dict[int, tuple[int, str]] = {}
    for option in _options(everybody, asked, priority):
        share = quotas.share(option.want, priority, keys)
        if share is None and option is asked:
            return None
        for index, until, by in _waits(option.want, share, quotas.held(option.want.relay, priority), off):
            if index not in off or until < off[index][0]:
                off[index] = until, by
        if share is not None and share.allowed:
            refused = _put_off(due, {each.index: off[each.index] for each in share.refused}, asked.want, quotas.now)
            cut = len(share.allowed) + len(share.refused) < len(due)
            return Choice(option, [due[index] for index in share.allowed], quotas.take(share), refused, cut)
    return Choice(None, [], None, _put_off(due, off, asked.want, quotas.now), False)


def _options(everybody: Sequence[Asked], asked: Asked, priority: int) -> Iterator[Asked]:
    """The want itself, then others of this claim for the same route that have something left."""
    yield asked
    for each in everybody:
        same = each.want.route == asked.want.route and each is not asked
        if same and each.left > 0 and priority <= each.want.least:
            yield each


def _put_off(due: Sequence[Due], off: Mapping[int, tuple[int, str]], want: Want, now: int) -> list[PutOff]:
    found: list[PutOff] = []
    for index, (until, by) in off.items():
        latest = now + _LOOK_AGAIN if want.elsewhere else until
        found.append(PutOff(due[index], min(until, latest, due[index].expires_at), by))
    return found


def _waits(want: Want, share: Share | None, held: Held | None, known: Iterable[int]) -> list[tuple[int, int, str]]:
    """By place in the list of recipients: until when a relay can't carry it, and for which quota."""
    if share is not None:
        return [(each.index, each.until, f"{want.relay} {each.quota}") for each in share.refused]
    assert held is not None
    return [(index, held.until, f"{held.relay} {held.quota}") for index in known]
