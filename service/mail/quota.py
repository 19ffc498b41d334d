"""What a provider lets one account send: so many messages in any window, or on each day of its calendar.

Written as `30/15m`, `200/d` (any 24 hours), `200/day` (midnight to midnight of the provider), `10000/d recipients`.
Who counts is the store; when a relay is asked again is the dispatcher's. Pure.
"""

from dataclasses import dataclass
from enum import StrEnum

from service.durations import Rate, parse_rate

HIGH = 0  # the priority that may use all of a quota
_CALENDAR = "day"
_DAY = 86400.0  # seconds


class Per(StrEnum):
    """Whose mail is counted."""

    RELAY = "relay"  # all of the account's
    RECIPIENT = "recipient"  # to one address
    DOMAIN = "domain"  # to the addresses of one domain


class Unit(StrEnum):
    """What is counted: mail transactions, or forward-paths in them."""

    MESSAGES = "messages"
    RECIPIENTS = "recipients"


@dataclass(frozen=True, slots=True)
class Quota:
    """`rate.count` units in any `rate.window` seconds; with a `zone`, on each calendar day there.

    guard: seconds by which a window is taken longer than the provider says. headroom: the share that only priority
    high may use. account: who is counted; relays with one login share what they may send.
    """

    text: str
    rate: Rate
    per: Per = Per.RELAY
    unit: Unit = Unit.MESSAGES
    zone: str = ""
    guard: float = 0.0
    headroom: float = 0.0
    account: str = ""

    @property
    def label(self) -> str:
        """As people read it: `10/h per recipient`."""
        return self.text if self.per is Per.RELAY else f"{self.text} per {self.per}"

    def bucket(self, address_key: str = "") -> str:
        """The name that its count has in the store. The count itself is no part of it: a changed one keeps the past."""
        window = f"{_CALENDAR} {self.zone}" if self.zone else f"{self.rate.window:g}s"
        whose = address_key if self.per is Per.RECIPIENT else address_key.rpartition("@")[2]
        return f"quota {self.account} {window} {self.unit} {self.per}" + ("" if self.per is Per.RELAY else f" {whose}")

    def count_for(self, priority: int) -> int:
        """How many units mail of this priority may find taken, itself included."""
        if priority == HIGH:
            return self.rate.count
        return max(1, int(self.rate.count * (1 - self.headroom) + 1e-9))


def parse_quota(text: str, per: Per, zone: str, guard: float, headroom: float, account: str) -> Quota:
    """One quota as written. `zone`: whose midnight a calendar day begins at, if known. Raises ValueError with a sentence."""
    written = " ".join(text.split())
    rate_text, _, unit_text = written.partition(" ")
    try:
        unit = Unit(unit_text or Unit.MESSAGES)
    except ValueError:
        raise ValueError("must end with its window, or with `messages` or `recipients`") from None
    count, slash, window = rate_text.partition("/")
    calendar = slash == "/" and window == _CALENDAR
    if calendar and not zone:
        raise ValueError("counts calendar days, so `timezone` must say whose; or write `/d` for any 24 hours")
    rate = parse_rate(f"{count}/d" if calendar else rate_text)
    shown = rate_text if unit is Unit.MESSAGES else f"{rate_text} {unit}"
    longest = _DAY if calendar else rate.window
    return Quota(shown, rate, per, unit, zone if calendar else "", min(guard, longest / 50), headroom, account)
