"""How a relay's account stands: its troubles, and who may log in. THE RULES that all processes on one store keep.

An account is what a provider counts: `user@host`, or `host:port` without a login; relays with the same one share all of
this. A login is a resource: providers count refused ones and lock accounts for them, so a secret that was not proven just
now is tried by one connection at a time, over all processes, and a broken account only by whoever holds the right.

Rules only, on values in memory: the store runs them within a transaction, a process runs them on what it knows. How
long a trouble lasts is relay/backoff's, what is done about it relay/condition's. Pure: time is an argument, ms.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

OPERATOR = "operator"
"""The kind of an operator's pause."""

PROVEN_FOR = 60_000
"""ms after a login that succeeded for which further ones with the same secret need no right.

No setting: the processes on one store keep this rule together, also while some of them run with other settings. How many
log in at once without the right is one (POSTROOM_LOGINS_AT_ONCE).
"""

_SLACK = 100  # ms by which clocks of processes may differ in what they call over
_SKEW = 2_000  # ms by which a trouble may end later than its length from now on, since clocks differ


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a relay takes no mail, or what is remembered of it once that is over."""

    kind: str  # the class in the delivery log, or OPERATOR
    at: int  # ms; when it was told
    until: int | None  # ms; None: until an operator ends it
    reason: str
    mark: str = ""  # of the secret that has it (RelayConfig.secret_mark); "": whatever the secret is
    probe: bool = False  # it stands after `until` too, until a login succeeds
    login: bool = False  # a login that succeeds disproves it; else its steps stay known
    step: int = 0
    times: int = 1  # in a row
    length: float = 0.0  # seconds of the pause; 0: not known
    steps: tuple[float, ...] = ()  # seconds: the pauses that its class takes, one after the other

    def stands(self, now: int) -> bool:
        """Whether the relay takes no mail for it."""
        return self.probe or self.until is None or self.until > now

    def lasts(self, now: int) -> bool:
        """Whether not even a probe may be tried."""
        return self.until is None or self.until > now

    def cut(self, now: int) -> "Trouble":
        """Itself, unless it would last for longer than its length from now on: then as if it were told now.

        Such a trouble was told by a clock that was ahead, or the clock that looks was set back.
        """
        if self.until is None or not self.length or self.until <= now + self._length + _SKEW:
            return self
        return replace(self, at=min(self.at, now), until=now + self._length)

    @property
    def _length(self) -> int:
        return int(self.length * 1000)


@dataclass(frozen=True, slots=True)
class Login:
    """The right to log in, and the last login that succeeded."""

    proven_at: int = 0  # ms; 0: since then a login was refused, or there was none
    mark: str = ""  # of the secret that was proven
    asked: str = ""  # of the secret for which the right was last given
    prober: str = ""  # who holds the right: `process/relay`; "": nobody
    lease_until: int = 0  # ms; then the right is free whatever became of the prober


class Answer(StrEnum):
    """What is said to one who wants to log in."""

    PROVEN = "proven"  # go on, no right is needed
    GRANTED = "granted"  # the right is yours until you tell how it went
    WAIT = "wait"  # another one holds it
    REFUSED = "refused"  # the account rests


@dataclass(frozen=True, slots=True)
class RelayEvent:
    """Something that happened to a relay, for people; `detail` holds no secret."""

    account: str
    relay: str
    at: int
    kind: str  # paused | broken | probe_failed | opened | alert | resumed | secret_changed
    detail: str = ""


@dataclass(slots=True)
class Standing:
    """One account. Each method is one rule and answers whether, or how, it changed anything."""

    troubles: dict[tuple[str, str], Trouble] = field(default_factory=dict)  # by kind and mark
    login: Login = field(default_factory=Login)

    def of(self, mark: str) -> list[Trouble]:
        """The troubles of one who uses the secret with this mark: another secret's are not his."""
        return [trouble for trouble in self.troubles.values() if trouble.mark in ("", mark)]

    def find(self, kind: str, mark: str) -> Trouble | None:
        """What is known of one kind."""
        return self.troubles.get((kind, mark)) or self.troubles.get((kind, ""))

    def proven(self, mark: str, now: int) -> bool:
        """Whether a login with this secret needs no right."""
        return now < self.proven_until(mark, now)

    def proven_until(self, mark: str, now: int) -> int:
        """Until when (ms) it needs none, as far as is known now; 0: it needs one."""
        login = self.login
        far_ahead = login.proven_at > now + PROVEN_FOR  # such a clock must not prove for ever
        if login.mark != mark or far_ahead or any(each.probe for each in self.of(mark)):
            return 0
        return login.proven_at + PROVEN_FOR

    # --- troubles ------------------------------------------------------------------------------------------------

    def cut(self, now: int) -> bool:
        """Cut what lasts for too long (Trouble.cut). True: something did."""
        before = self.troubles
        self.troubles = {key: trouble.cut(now) for key, trouble in before.items()}
        return self.troubles != before

    def record(self, trouble: Trouble) -> bool:
        """Keep a trouble unless the one that is known lasts longer. True: nobody had told of it yet."""
        key = (trouble.kind, trouble.mark)
        known = self.troubles.get(key)
        known = known and known.cut(trouble.at)
        if known is not None and trouble.until is not None and (known.until is None or known.until > trouble.until):
            return False
        self.troubles[key] = trouble
        if trouble.probe and trouble.mark in ("", self.login.mark):
            self.login = replace(self.login, proven_at=0)
        return known is None or not (known.until is None or known.until > trouble.at + _SLACK)

    def forgive(self, trouble: Trouble) -> bool:
        """Forget a trouble, if it is still the one that was believed."""
        key = (trouble.kind, trouble.mark)
        if self.troubles.get(key) != trouble:
            return False
        del self.troubles[key]
        return True

    def clear(self) -> None:
        """An operator ends everything: troubles, and what is known of secrets."""
        self.troubles.clear()
        self.login = replace(self.login, proven_at=0)

    # --- logins --------------------------------------------------------------------------------------------------

    def login_rest(self, mark: str, now: int) -> Trouble | None:
        """Why not even a check may log in: the secret was refused, or the provider asked for a pause before a login.

        A pause for mail, an operator's, or a network that was down a moment ago is no reason to check less.
        """
        resting = [each for each in self.of(mark) if each.lasts(now) and (each.mark or (each.login and not each.probe))]
        return max(resting, key=lambda each: each.until or 0, default=None)

    def answer(
        self, mark: str, prober: str, now: int, is_dead: Callable[[str], bool], force: float | None = None
    ) -> Answer:
        """What one who wants to log in is told; changes nothing. `is_dead`: whether a prober's process is no more.

        force: seconds after the last refused login from which on one may be tried although the account rests for it.
        """
        rest = None if force is None else self.login_rest(mark, now)
        if rest is not None:
            if now < min(rest.at, now) + int((force or 0) * 1000):
                return Answer.REFUSED
        elif any(each.lasts(now) for each in self.of(mark)):
            return Answer.REFUSED
        if self.proven(mark, now):
            return Answer.PROVEN
        login = self.login
        ours = (login.prober, login.asked) == (prober, mark)
        held = login.prober != "" and not ours and login.lease_until > now
        return Answer.WAIT if held and not is_dead(login.prober) else Answer.GRANTED

    def grant(self, mark: str, prober: str, until: int) -> bool:
        """Give the right away. True: the last one who had it used another secret."""
        changed = self.login.asked not in ("", mark)
        self.login = replace(self.login, asked=mark, prober=prober, lease_until=until)
        return changed

    def prove(self, mark: str, prober: str, now: int) -> bool:
        """A login succeeded. True: the relay had been broken, and is so no more."""
        opened = False
        for trouble in self.of(mark):
            if trouble.login:
                opened |= trouble.probe
                self.forgive(trouble)
            elif trouble.probe and not trouble.lasts(now):
                opened = True
                self.troubles[trouble.kind, trouble.mark] = replace(trouble, probe=False)
        self.login = replace(self.login, proven_at=now, mark=mark)
        self.release(prober)
        return opened

    def release(self, prober: str) -> bool:
        """Give the right back."""
        if not prober or self.login.prober != prober:
            return False
        self.login = replace(self.login, prober="", lease_until=0)
        return True


def first_of(troubles: Iterable[Trouble], now: int) -> Trouble | None:
    """The trouble that people are told of: an operator's, else what needs a probe, else the one that lasts longest."""
    return max(
        (each for each in troubles if each.stands(now)),
        key=lambda each: (each.until is None, each.probe, each.until or 0),
        default=None,
    )
