"""Whether a relay takes mail now, and who of all may log in to it. It knows no slot and no message.

Troubles come from verdicts (`blame`), from logins that failed, and from other processes through the ledger; health is
what they come to. A secret that was not proven just now is tried by one connection over all processes: the others wait
a moment, then give back what they have. A broken relay is probed by whoever gets the right when its pause is over.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Protocol

from service.clock import Clock
from service.errors import StorageUnavailable
from service.mail.outcome import Failure, Phase, Policy, Scope, Verdict, judge
from service.mail.trouble import OPERATOR, Answer, RelayEvent, Trouble, first_of
from service.relay.backoff import Backoff
from service.relay.config import RelayConfig
from service.relay.failure import SessionFailure
from service.relay.port import Health, Ledger
from service.relay.session import Session
from service.settings import Settings
from service.telemetry import Log, get_logger

log = get_logger()

# No settings: how soon news of another process can be had at all, and how much of a reply a line can show.
_ASK_AGAIN = 1.0  # seconds until a probe that another process seems to have under way is asked for again
_DETAIL = 500  # characters of an event


class Owner(Protocol):
    """The pool, as its condition sees it."""

    name: str
    config: RelayConfig
    policy: Policy

    async def open(self) -> Session:
        """Connect and authenticate. Raises SessionFailure."""

    def health_changed(self) -> None:
        """Health, or who may log in, is another now."""

    def secret_refused(self) -> None:
        """What it logged in with was refused: perhaps there is another one by now."""


class Condition:
    """See the module."""

    def __init__(self, owner: Owner, settings: Settings, clock: Clock, ledger: Ledger) -> None:
        self._owner, self._clock, self._ledger = owner, clock, ledger
        self._account, self._mark = owner.config.account, owner.config.secret_mark
        self._has_login = bool(owner.config.user)
        # a process of role `api` may lack the secret: it then shows what holds for the one that was last used
        self._sends = settings.role != "api"
        self._knows_secret = self._sends or bool(owner.config.secret.get_secret_value())
        self._patience, self._logins_at_once = settings.start_wait, settings.logins_at_once
        self._longest, self._lease = longest_login(owner.config, settings), settings.lease
        self._prober = f"{ledger.holder}/{owner.name}"
        self._backoff = Backoff(owner.config.timezone, settings.quota_guard)
        self._news = asyncio.Event()
        self._asking = False  # one of our connections asks for the right, or has it
        self._renewing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._probing: asyncio.Task[None] | None = None
        self._closed = False
        self.health, self.reason = Health.OPEN, ""
        self.until: int | None = None  # ms
        # what the ledger says; it tells of each change, and is asked with each message
        self._troubles: Sequence[Trouble] = ()
        self._proven_until = 0  # ms
        self._see(clock.now())
        ledger.on_news(self._account, self._heard)

    # --- what is so ----------------------------------------------------------------------------------------------

    @property
    def prober_name(self) -> str:
        """By which name the right is held."""
        return self._prober

    @property
    def mark(self) -> str:
        """Of the secret whose troubles count here."""
        return self._mark if self._knows_secret else self._ledger.standing(self._account).login.asked

    def troubles(self) -> Sequence[Trouble]:
        """Those that stand, and those that are remembered."""
        return self._troubles

    def proven(self) -> bool:
        """Whether any number of connections may log in."""
        return self._clock.now() < self._proven_until

    def proven_at(self) -> int | None:
        """When the last login succeeded (ms), if none was refused since."""
        login = self._ledger.standing(self._account).login
        return login.proven_at or None if login.mark == self.mark else None

    def prober(self) -> str | None:
        """Who is logging in alone."""
        login = self._ledger.standing(self._account).login
        return login.prober or None if login.lease_until > self._clock.now() else None

    def may_ask(self) -> bool:
        """Whether nobody else is logging in alone."""
        return not self._asking and self.prober() in (None, self._prober)

    # --- troubles ------------------------------------------------------------------------------------------------

    def blame(self, verdict: Verdict, reason: str) -> int | None:
        """Rest as a verdict on the relay says; answers until when (ms) it takes no mail."""
        reason = self._shown(reason)
        known = self._ledger.standing(self._account).find(verdict.kind, self.mark)
        trouble = self._backoff.worse(known, verdict, reason, self._clock.now(), mark=self.mark)
        if trouble is not known:
            event = self._event("broken" if verdict.probe else "paused", reason)
            self._ledger.record_trouble(self._account, trouble, event)
            self._alert_of(verdict, trouble, reason)
        return self.until

    def succeeded(self) -> None:
        """A message was accepted: what is over long enough is forgotten, step by step."""
        for trouble in self._troubles:
            better = self._backoff.better(trouble, self._clock.now())
            if better is None:
                self._ledger.forgive_trouble(self._account, trouble)
            elif better is not trouble:
                self._ledger.record_trouble(self._account, better, None)

    def hold(self, reason: str) -> Awaitable[None]:
        """See port.Relay."""
        return self._ledger.hold(
            Trouble(OPERATOR, self._clock.now(), None, reason), self._event("paused", f"by an operator: {reason}")
        )

    def resume(self) -> Awaitable[None]:
        """See port.Relay."""
        return self._ledger.clear(self._event("resumed", "by an operator"))

    def alert(self, kind: str, detail: str) -> None:
        """See port.Relay."""
        self._ledger.alert(self._event("alert", f"{kind}: {detail}"), kind)

    def _alert_of(self, verdict: Verdict, trouble: Trouble, reason: str) -> None:
        if trouble.times >= verdict.alert > 0:
            log.warning(Log.ALERT_RELAY, relay=self._owner.name, kind=verdict.kind, detail=reason)
            self.alert(verdict.kind, reason.removeprefix(f"{verdict.kind}: "))

    def _event(self, kind: str, detail: str) -> RelayEvent:
        return RelayEvent(self._account, self._owner.name, self._clock.now(), kind, self._shown(detail))

    def _shown(self, words: str) -> str:
        """Words of a peer, which may say anything, without the secret."""
        secret = self._owner.config.secret.get_secret_value()
        return (words.replace(secret, "[secret]") if secret else words)[:_DETAIL]

    # --- logins --------------------------------------------------------------------------------------------------

    async def log_in(self, *, probing: bool = False) -> Session:
        """A fresh session. Raises SessionFailure; one with Failure.SHUTDOWN says that nothing was tried."""
        right = await self._right(probing)
        try:
            return await self._logged_in(right)
        finally:
            if not right and self._has_login:
                self._ledger.end_login(self._account)

    async def _logged_in(self, right: str) -> Session:
        try:
            session = await self._within_time()
        except SessionFailure as failure:
            self.login_failed(failure, right)
            raise
        except BaseException:
            self.login_untried(right)
            raise
        self.logged_in(right)
        return session

    def logged_in(self, right: str = "") -> None:
        """A login succeeded: the secret is proven. right: by which name the right was held, "" when none was needed."""
        self._ended(right)
        self._ledger.prove_login(self._mark, right, self._event("opened", "a login succeeded"))

    def login_untried(self, right: str) -> None:
        """Nothing was found out; another one may try."""
        self._ended(right)
        self._ledger.release_login(self._account, right)

    def _ended(self, right: str) -> None:
        if right:
            self._asking = False
            self._renew_no_more()

    async def right_to_check(self, force: float | None = None) -> Answer:
        """What one who checks is told; WAIT when another login takes too long. Raises SessionFailure while the store is away.

        force: see Standing.answer.
        """
        until = self._clock.monotonic() + self._patience
        while True:
            news = self._news
            if not self._asking and (answer := await self._ask(force)) is not Answer.WAIT:
                return answer
            if not await _within(until - self._clock.monotonic(), news):
                return Answer.WAIT

    async def _within_time(self) -> Session:
        try:
            async with asyncio.timeout(self._longest):
                return await self._owner.open()
        except TimeoutError:
            raise SessionFailure(Phase.CONNECT, failure=Failure.TIMEOUT, detail="the login took too long") from None

    async def _right(self, probing: bool) -> str:
        """By which name the right is held; "" when none is needed: then a place is taken instead. Raises SessionFailure when
        it can't be had.
        """
        until = self._clock.monotonic() + self._patience
        while True:
            news = self._news  # what comes while we look and ask must not be missed
            if self._closed or (self.health is not Health.OPEN and not probing):
                raise _untried(f"the relay is {self.health.value}: {self.reason}")
            proven = not probing and self.proven()
            if not proven and not self._asking:
                answer = await self._ask()
                if answer is Answer.GRANTED:
                    return self._prober
                if answer is Answer.REFUSED:
                    raise _untried("the relay rests")
                proven = answer is Answer.PROVEN
            if proven and (not self._has_login or self._ledger.begin_login(self._account, self._logins_at_once)):
                return ""
            if not await _within(until - self._clock.monotonic(), news):
                raise _untried("another connection is logging in")

    async def _ask(self, force: float | None = None) -> Answer:
        """While `_asking`, no other connection of ours asks; who is granted the right keeps it set.

        A login may take minutes. The right is held for no longer than a lease at a time, so that a process which dies
        meanwhile keeps nobody from sending for long.
        """
        self._asking, answer = True, Answer.WAIT
        try:
            answer = await self._ask_for_a_lease(force)
        except StorageUnavailable as error:
            raise _untried(error.detail) from None
        except asyncio.CancelledError:  # it may have been granted meanwhile
            self._ledger.release_login(self._account, self._prober)
            raise
        finally:
            self._asking = answer is Answer.GRANTED
        if answer is Answer.GRANTED:
            self._renewing = asyncio.create_task(self._renew(force))
        return answer

    async def _ask_for_a_lease(self, force: float | None) -> Answer:
        now = self._clock.now()
        return await self._ledger.ask_login(self._account, self._mark, self._prober, now, self._lease, force)

    async def _renew(self, force: float | None) -> None:
        """Hold the right until it is given back, or as long as the store can be asked."""
        while True:
            await asyncio.sleep(self._lease / 3)
            try:
                await self._ask_for_a_lease(force)
            except StorageUnavailable:
                pass  # asked again soon; until then the lease goes on
            except Exception as error:  # our own fault must not let the right run out under a login
                log.critical(Log.LOOP_FAILED, during="renew", exc_info=error)

    def _renew_no_more(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()  # what it asked for is in the store before the right is given back
            self._renewing = None

    def login_failed(self, failure: SessionFailure, right: str, *, forced: bool = False) -> None:
        """The trouble is written down before the right is free. forced: tried while the account rests, so it counts as
        the next one in a row.
        """
        self._ended(right)
        verdict = judge(self._owner.policy, failure.phase, failure.reply, failure.failure)
        if verdict.scope is not Scope.RELAY:
            self._ledger.release_login(self._account, right)
            return
        known = self._ledger.standing(self._account).find(verdict.kind, self._mark)
        rests_until = known.until if forced and known is not None else None
        if forced and known is not None:
            known = replace(known, until=self._clock.now())
        reason = self._shown(f"{verdict.kind}: {failure.reply or failure.detail or failure.failure}")
        stretch = 1 + self._clock.jitter() / 4  # so that processes on several stores don't knock in step
        trouble = self._backoff.worse(
            known, verdict, reason, self._clock.now(), mark=self._mark, stretch=stretch if verdict.probe else 1.0
        )
        if rests_until is not None and trouble.until is not None and trouble.until < rests_until:
            # the ledger keeps what lasts longer, and the time of this refusal must be known to all who may force one
            trouble = replace(trouble, until=rests_until, length=(rests_until - trouble.at) / 1000)
        again = known is not None and known.probe
        kind = "probe_failed" if again else "broken" if verdict.probe else "paused"
        self._ledger.fail_login(trouble, right, self._event(kind, reason))
        if trouble is not known:
            self._alert_of(verdict, trouble, reason)
        if failure.phase is Phase.AUTH and failure.reply is not None and failure.reply.code == 535:
            self._owner.secret_refused()

    # --- time and news -------------------------------------------------------------------------------------------

    def _heard(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
        self.review()

    def review(self) -> None:
        """Look at the troubles as they are now, and wake when something of them is over."""
        now = self._clock.now()
        self._see(now)
        self._arm(now)
        self._owner.health_changed()

    def _see(self, now: int) -> None:
        """Make health of the troubles."""
        standing = self._ledger.standing(self._account)
        standing.cut(now)
        self._troubles = standing.of(self.mark)
        self._proven_until = standing.proven_until(self.mark, now)
        troubles = [each for each in self._troubles if each.stands(now)]
        worst = first_of(troubles, now)
        if worst is None:
            self.health, self.reason, self.until = Health.OPEN, "", None
        elif worst.kind == OPERATOR:
            self.health, self.reason, self.until = Health.PAUSED, worst.reason, None
        else:
            self.health = Health.BROKEN if worst.probe else Health.WAITING
            self.reason, self.until = worst.reason, max(each.until or 0 for each in troubles)

    def _arm(self, now: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed or self.until is None:
            return
        left = (self.until - now) / 1000
        if left <= 0 and not self._sends:  # who probes tells us
            return
        self._timer = asyncio.get_running_loop().call_later(left if left > 0 else _ASK_AGAIN, self._over)

    def _over(self) -> None:
        """A pause is over, or a probe may be asked for again."""
        self._timer = None
        if self.health is not Health.BROKEN or not self._sends or self._clock.now() < (self.until or 0):
            self.review()
        elif self._probing is None:
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        """One connection, authenticated and ended; no mail."""
        try:
            session = await self.log_in(probing=True)
            await session.quit()
        except SessionFailure:
            pass  # it is written down; or another process probes, and we look again
        except Exception as error:  # our own fault must not leave the relay unprobed
            log.critical(Log.LOOP_FAILED, during="probe", exc_info=error)
        finally:
            self._probing = None
            self.review()

    async def close(self) -> None:
        """No probe and no timer from here on."""
        self._closed = True
        self._ledger.no_news(self._account, self._heard)
        if self._timer is not None:
            self._timer.cancel()
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        self._heard()


def longest_login(config: RelayConfig, settings: Settings) -> float:
    """Seconds that a login may take: each step its whole time; a token may be looked for anew, and tried once more."""
    once = 3 * settings.connect_timeout + 8 * max(settings.connect_timeout, settings.greeting_timeout)
    return once if config.tokens is None else 2 * once + 4 * settings.token_timeout


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Whether it happens so soon."""
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _untried(why: str) -> SessionFailure:
    return SessionFailure(Phase.CONNECT, failure=Failure.SHUTDOWN, detail=why)
