"""Which relays may carry a message: by pinned name, by sender, by what it needs, then by priority and weight.

Implements port.Relays. It keeps the pools through a change of the configuration: a relay that stays the same keeps its
connections, one that changes gets a new pool while the old one finishes what it has, and one that is gone takes nothing
more. It holds no message and asks no store; who is free now is asked of the pools.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache

from service.clock import Clock
from service.errors import RelayNotFound
from service.mail.address import email_key
from service.mail.limits import offers
from service.mail.route import envelope_in, refused_by, unfit_for
from service.relay.check_turns import CheckTurns
from service.relay.config import RelayConfig
from service.relay.ledger import ProcessLedger
from service.relay.oauth import Tokens
from service.relay.pool import Pool
from service.relay.port import Health, Ledger
from service.relay.tls import RelayContext, tls_context
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The names of relays, by what a new configuration did to them."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()  # the same, and what its tokens are made of is new after a refusal: it is tried again

    @property
    def anything(self) -> bool:
        """Whether any relay is another now, or is tried again."""
        return bool(self.added or self.changed or self.removed or self.renewed)


@dataclass(slots=True)
class _Retiring:
    """A pool that finishes what it has, and which relay waits for its connections: the one that has its account now."""

    pool: Pool
    heir: str


class Router:
    """The configured relays."""

    def __init__(
        self, configs: Sequence[RelayConfig], settings: Settings, clock: Clock, ledger: Ledger | None = None
    ) -> None:
        self._settings, self._clock = settings, clock
        self._ledger = ledger or ProcessLedger()  # it remembers an account's troubles while its relays change
        self._capacity: list[Callable[[], None]] = []
        self._refused: list[Callable[[], None]] = []
        self._retiring: dict[asyncio.Task[None], _Retiring] = {}  # closing, and not done yet
        self._pools: dict[str, Pool] = {}
        self._closing = False
        self._check_turns = CheckTurns(clock.monotonic)
        self._read = tuple(configs)  # last: of a relay that stays the same its pool has an older one
        self._order({config.name: self._pool(config) for config in _with_one_keeper(configs, ())})

    def _pool(self, config: RelayConfig, context: RelayContext | None = None) -> Pool:
        pool = Pool(config, self._settings, self._clock, self._ledger, context)
        pool.still_busy = lambda: self._still_busy(config)
        pool.check_turns = self._check_turns
        pool.secret_refused = self._secret_refused
        return pool

    def _secret_refused(self) -> None:
        for callback in self._refused:
            callback()

    def _still_busy(self, config: RelayConfig) -> int:
        """Connections with mail in flight of what the relay was before, by whatever name: its provider counts both."""
        before = [each.pool for each in self._retiring.values() if each.heir == config.name]
        return sum(pool.in_flight for pool in before if pool.config.account == config.account)

    def _order(self, pools: dict[str, Pool]) -> None:
        """Take these pools, those of the best priority first."""
        self._pools = dict(sorted(pools.items(), key=lambda each: each[1].config.priority))
        counts: dict[int, int] = {}
        for pool in pools.values():
            counts[pool.config.priority] = counts.get(pool.config.priority, 0) + 1
        self._restricted = any(_restricts(pool) for pool in pools.values())
        self._sticky = {
            pool.config.priority for pool in pools.values() if pool.config.sticky and counts[pool.config.priority] > 1
        }

    def names(self) -> tuple[str, ...]:
        """See port."""
        return tuple(self._pools)

    def get(self, name: str) -> Pool:
        """See port."""
        pools = self._pools
        try:
            return pools[name]
        except KeyError:
            near = get_close_matches(name, pools, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise RelayNotFound(f"There is no relay {name!r}{meant}") from None

    # --- which may carry it ------------------------------------------------------------------------------------------

    def carriers(self, sender: str, pinned: str | None) -> list[Pool]:
        """See port. One whose sender rule refuses the sender is none of them, so its mail waits for one that is."""
        return [pool for pool in _listed(self._asked(pinned), sender) if _accepts(pool, sender)]

    def candidates(self, sender: str, pinned: str | None, needs: Sequence[str] = ()) -> tuple[Pool, ...]:
        """See port."""
        found = self.carriers(sender, pinned)
        if needs:
            found = _able(found, needs)
        if pinned is not None or len(found) < 2:
            return tuple(found)
        return tuple(self._ranked(found, sender))

    def _asked(self, pinned: str | None) -> list[Pool]:
        pools = self._pools
        return list(pools.values()) if pinned is None else [pools[pinned]] if pinned in pools else []

    def _ranked(self, pools: Sequence[Pool], sender: str) -> list[Pool]:
        """Best priority first; among equals by a draw that prefers weight.

        The relay with the largest u ** (1 / weight) comes first (Efraimidis and Spirakis, 2006): with u drawn anew each
        time, mail is shared by weight; with u made of sender and relay (weighted rendezvous hashing), senders are, and
        when a relay comes or goes only its own senders move.
        """

        def rank(pool: Pool) -> tuple[int, float]:
            config = pool.config
            drawn = _lot(sender, pool.name) if config.priority in self._sticky else self._clock.jitter()
            return config.priority, -(drawn ** (1.0 / config.weight))

        return sorted(pools, key=rank)

    def preferred(self, names: Sequence[str], now: int) -> Sequence[str]:
        """See port."""
        if not self._sticky:
            return names
        chosen: list[str] = []
        for name in names:
            pool = self._pools[name]
            if pool.config.priority not in self._sticky:
                chosen.append(name)
            elif pool.status(now).health is Health.OPEN:
                return [*chosen, name]
        return chosen

    def sender_decides(self) -> bool:
        """See port."""
        return bool(self._sticky) or self._restricted

    # --- while it runs -----------------------------------------------------------------------------------------------

    def on_capacity(self, callback: Callable[[], None]) -> None:
        """See port."""
        self._capacity.append(callback)
        for pool in self._pools.values():
            pool.on_capacity(callback)

    def on_refused_secret(self, callback: Callable[[], None]) -> None:
        """`callback` is called when a login of a relay was refused for its secret: another one may be there by now."""
        self._refused.append(callback)

    async def reload(self, configs: Sequence[RelayConfig]) -> Reloaded:
        """Take another configuration: all of it, or none of it when a relay can't be made of it.

        Raises ConfigurationError. One call at a time.
        """
        before = self._pools
        configs = _with_one_keeper(configs, [pool.config.tokens for pool in before.values()])
        kept = [config for config in configs if config.name in before and is_same(config, before[config.name].config)]
        others = [config for config in configs if config not in kept]
        contexts = await asyncio.to_thread(lambda: [tls_context(config) for config in others])  # 0.1 s each
        if self._closing:
            return Reloaded()
        made = {each.name: self._pool(each, context) for each, context in zip(others, contexts, strict=True)}
        gone = [name for name in before if name not in {config.name for config in configs}]
        changed = [name for name in made if name in before]
        self._take([config.name for config in configs], made, {each.name: before[each.name] for each in kept})
        self._read = tuple(configs)
        renewed = self.tokens_renewed()
        for name in changed:
            self._try_again(made[name])
        added = tuple(name for name in made if name not in before)
        for name in changed:
            self._retire(before[name], name)
        for name in gone:
            account = before[name].config.account
            self._retire(before[name], next((each for each in added if made[each].account == account), name))
        for callback in self._capacity if made or gone else ():
            callback()
        return Reloaded(added, tuple(changed), tuple(gone), renewed)

    def _take(self, names: Iterable[str], made: dict[str, Pool], kept: dict[str, Pool]) -> None:
        for name, pool in made.items():
            for callback in self._capacity:
                pool.on_capacity(callback)
            old = self._pools.get(name)
            if old is not None and old.offer is not None and old.endpoint == pool.endpoint:
                pool.told(old.offer)
        self._order({name: made.get(name) or kept[name] for name in names})

    def _try_again(self, pool: Pool) -> None:
        """What broke the connection may be what was mended. A refused login stays so until its secret is another one,
        and a pause that the provider asked for stays in any case.
        """
        config = pool.config
        for trouble in self._ledger.standing(config.account).of(config.secret_mark):
            if trouble.probe and trouble.login and not trouble.mark and self._settings.role != "api":
                self._ledger.forgive_trouble(config.account, trouble)

    def tokens_renewed(self) -> tuple[str, ...]:
        """Relays whose tokens were renewed since they were refused. To be called at the start, when it is known what broke
        before, and now and then: whoever logged in when a file was written may have found out nothing.
        """
        return tuple(config.name for config in self._read if self._tokens_renewed(config))

    def _tokens_renewed(self, config: RelayConfig) -> bool:
        """What was refused stands no more when a file of the tokens was written after it. True: there was such a refusal.

        While somebody logs in nothing is done: a server may have given that one a new refresh token, which it wrote, and
        how its login ends will be told.
        """
        standing = self._ledger.standing(config.account)
        if self._settings.role == "api" or standing.login.lease_until > self._clock.now():
            return False
        old = [
            trouble
            for trouble in standing.of(config.secret_mark)
            if trouble.mark and trouble.login and trouble.at < config.tokens_written_at
        ]
        for trouble in old:
            self._ledger.forgive_trouble(config.account, trouble)
        return bool(old)

    def _retire(self, pool: Pool, heir: str) -> None:
        """Let it finish what is in flight, however long a transaction may take, and end its sessions."""
        for each in self._retiring.values():
            if each.heir == pool.name:
                each.heir = heir
        task = asyncio.create_task(pool.close(self._settings.transaction_timeout))
        self._retiring[task] = _Retiring(pool, heir)
        task.add_done_callback(lambda done: self._retiring.pop(done, None))

    async def close(self, grace: float) -> None:
        """See port."""
        self._closing = True
        retiring = dict(self._retiring)
        for task in retiring:
            task.cancel()
        pools = (*self._pools.values(), *(each.pool for each in retiring.values()))
        await asyncio.gather(*(pool.close(grace) for pool in pools))


def _with_one_keeper(configs: Sequence[RelayConfig], known: Iterable[Tokens | None]) -> list[RelayConfig]:
    """Equal sources of tokens have one keeper, the known one: it has what a server gave in place of a refresh token."""
    keepers = [tokens for tokens in known if tokens is not None]
    kept: list[RelayConfig] = []
    for config in configs:
        if config.tokens is not None:
            keeper = next((each for each in keepers if each == config.tokens), config.tokens)
            keepers.append(keeper)
            config = replace(config, tokens=keeper)
        kept.append(config)
    return kept


def _listed(pools: Sequence[Pool], sender: str) -> list[Pool]:
    """Those whose `from` names the sender. Of a sender that is not known, those that take any; if none does, all."""
    if not sender:
        return [pool for pool in pools if not _restricts(pool)] or list(pools)
    key = email_key(sender)
    domain = key.rpartition("@")[2]
    return [
        pool for pool in pools if not pool.config.senders or key in pool.config.senders or domain in pool.config.senders
    ]


def _restricts(pool: Pool) -> bool:
    """Whether there are senders whom it refuses."""
    return bool(pool.config.senders) or (pool.rule.must_equal_login and not pool.rule.rewrite_from)


def _accepts(pool: Pool, sender: str) -> bool:
    rule = pool.rule
    return not sender or not rule.must_equal_login or rule.rewrite_from or email_key(sender) == email_key(rule.login)


def _able(pools: Iterable[Pool], needs: Sequence[str]) -> list[Pool]:
    """Those whose limits and sender rule allow it, and of them those that weren't found unable to send it and that offer
    what it needs.

    Where none is left, the next session says so to whoever waits: better than to wait in silence.
    """
    envelope_from = envelope_in(needs)
    able = [
        pool
        for pool in pools
        if not refused_by(needs, pool.name)
        and _accepts(pool, envelope_from)
        and all(pool.config.limits.take(word) for word in needs)
    ]
    left = [pool for pool in able if not unfit_for(needs, pool.name)] or able
    return [pool for pool in left if all(offers(pool.offer, word) for word in needs)] or left


@lru_cache(maxsize=65536)
def _lot(sender: str, relay: str) -> float:
    """Between 0 and 1, always the same for a sender and a relay."""
    digest = hashlib.blake2b(f"{email_key(sender) if sender else ''}\0{relay}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) + 1) / (2**64 + 1)


def is_same(one: RelayConfig, other: RelayConfig) -> bool:
    """Whether nothing has changed, the rules for its replies and the files that it names included."""
    return one.policy.rules == other.policy.rules and replace(one, policy=other.policy) == other
