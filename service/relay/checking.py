"""A check beside the mail of a process: whose turn it is, whether it may log in, and who is told how that ended.

A login is the part of a check that providers count. So a check asks for the same right as a session, tells the ledger of
an accepted or refused login like one, and logs in not at all while the account rests for its logins; then it does
everything else. What a check looks at is relay/check's; what fails before the login says nothing of the account, and
perhaps only of this machine, so it is told to whoever asked and to nobody else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from service.clock import Clock, rfc3339
from service.mail.outcome import Phase
from service.mail.trouble import Answer, Trouble
from service.relay.check import Withheld, check
from service.relay.check_turns import CheckTurns
from service.relay.condition import Condition
from service.relay.config import RelayConfig
from service.relay.failure import SessionFailure
from service.relay.hints import ACCOUNT_RESTS, LOGIN_ELSEWHERE
from service.relay.port import CheckStep, Ledger
from service.relay.session import Timeouts
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class _Permit:
    """To log in, or why not. right: the name by which it is held, "" when none is needed."""

    right: str = ""
    forced: bool = False
    withheld: Withheld | None = None


class Checking:
    """The checks of one relay."""

    def __init__(
        self, config: RelayConfig, settings: Settings, clock: Clock, ledger: Ledger, condition: Condition
    ) -> None:
        self._config, self._clock, self._ledger, self._condition = config, clock, ledger, condition
        self._interval = settings.check_force_interval  # seconds
        warning = settings.certificate_warning
        self._walk = partial(
            check, config, Timeouts.of(settings), settings.ehlo_name, clock, certificate_warning=warning
        )

    async def run(self, turns: CheckTurns, sender: str, *, force: bool) -> Sequence[CheckStep]:
        """All steps, in order. Raises CheckRunning, ConfigurationError for TLS keys that OpenSSL refuses."""
        with turns.turn(self._config.account, self._config.name):
            permit = await self._permit(turns, force)
            try:
                checked = await self._walk(sender=sender, withheld=permit.withheld)
            except BaseException:
                self._condition.login_untried(permit.right)
                raise
            self._tell(permit, checked.logged_in, checked.failure)
            return checked.steps

    def _tell(self, permit: _Permit, logged_in: bool, failure: SessionFailure | None) -> None:
        if logged_in:
            self._condition.logged_in(permit.right)
        elif failure is not None and failure.phase is Phase.AUTH and failure.reply is not None:
            self._condition.login_failed(failure, permit.right, forced=permit.forced)
        else:
            self._condition.login_untried(permit.right)

    # --- whether it may log in ---------------------------------------------------------------------------------------

    async def _permit(self, turns: CheckTurns, force: bool) -> _Permit:
        if not self._config.user:
            return _Permit()
        rest = self._rest()
        if rest is not None and (not force or self._wait_to_force(turns, rest) > 0):
            return self._withheld(turns, rest, force)
        forced = rest is not None
        try:
            answer = await self._condition.right_to_check(self._interval if forced else None)
        except SessionFailure as failure:
            return _Permit(withheld=Withheld(f"no login was tried: {failure.detail}"))
        if answer is Answer.GRANTED:
            if forced:
                turns.forced(self._config.account)
            return _Permit(right=self._condition.prober_name, forced=forced)
        if answer is Answer.WAIT:
            return _Permit(withheld=Withheld("no login was tried: another connection is logging in", LOGIN_ELSEWHERE))
        # REFUSED: the store may know of a refusal that this process had not heard of; or it rests, and not for a login
        rest = self._rest() if answer is Answer.REFUSED else None
        return _Permit() if rest is None else self._withheld(turns, rest, force)

    def _rest(self) -> Trouble | None:
        standing = self._ledger.standing(self._config.account)
        return standing.login_rest(self._config.secret_mark, self._clock.now())

    def _wait_to_force(self, turns: CheckTurns, rest: Trouble) -> float:
        """Seconds, counted from the last login that was refused in any process, or forced in this one."""
        now = self._clock.now()
        return max(
            turns.wait_to_force(self._config.account, self._interval),
            (min(rest.at, now) - now) / 1000 + self._interval,
        )

    def _withheld(self, turns: CheckTurns, rest: Trouble, force: bool) -> _Permit:
        if not force:
            return _withheld(rest)
        at = self._clock.now() + int(max(self._wait_to_force(turns, rest), 0) * 1000)
        words = f"no login was tried: {rest.reason}; one may be forced at {rfc3339(at)}"
        return _Permit(withheld=Withheld(words, ACCOUNT_RESTS))


def _withheld(rest: Trouble) -> _Permit:
    when = "" if rest.until is None else f"; one may be tried at {rfc3339(rest.until)}"
    return _Permit(withheld=Withheld(f"no login was tried: {rest.reason}{when}", ACCOUNT_RESTS))
