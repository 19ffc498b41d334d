"""Which relays may carry a message: by pinned name, by sender, then by priority and weight. Implements port.Relays."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

from service.clock import Clock
from service.errors import RelayNotFound
from service.mail.address import email_key
from service.relay.config import RelayConfig
from service.relay.pool import Pool
from service.settings import Settings


class Router:
    """The configured relays."""

    def __init__(self, configs: Sequence[RelayConfig], settings: Settings, clock: Clock) -> None:
        self._clock = clock
        ordered = sorted(configs, key=lambda config: config.priority)
        self._pools = {config.name: Pool(config, settings, clock) for config in ordered}

    def names(self) -> tuple[str, ...]:
        """See port."""
        return tuple(self._pools)

    def get(self, name: str) -> Pool:
        """See port."""
        try:
            return self._pools[name]
        except KeyError:
            near = get_close_matches(name, self._pools, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise RelayNotFound(f"There is no relay {name!r}{meant}") from None

    def candidates(self, sender: str, pinned: str | None) -> tuple[Pool, ...]:
        """See port. When every relay refuses the sender all are named, so that the trial seal says what it must be."""
        if pinned is not None:
            pool = self._pools.get(pinned)
            return (pool,) if pool is not None and _listed(pool, sender) else ()
        listed = [pool for pool in self._pools.values() if _listed(pool, sender)]
        if len(listed) < 2:
            return tuple(listed)
        willing = [pool for pool in listed if _accepts(pool, sender)] or listed
        return tuple(self._by_weight(willing))

    def _by_weight(self, pools: Sequence[Pool]) -> list[Pool]:
        """Best priority first; among equals a weighted draw, so that load is shared."""
        return sorted(
            pools,
            key=lambda pool: (pool.config.priority, -(self._clock.jitter() ** (1.0 / pool.config.weight))),
        )

    def sender_decides(self) -> bool:
        """See port."""
        several = len(self._pools) > 1
        return several and any(
            pool.config.senders or (pool.rule.must_equal_login and not pool.rule.rewrite_from)
            for pool in self._pools.values()
        )

    def on_capacity(self, callback: Callable[[], None]) -> None:
        """See port."""
        for pool in self._pools.values():
            pool.on_capacity(callback)

    async def close(self, grace: float) -> None:
        """See port."""
        for pool in self._pools.values():
            await pool.close(grace)


def _listed(pool: Pool, sender: str) -> bool:
    if not pool.config.senders or not sender:
        return True
    key = email_key(sender)
    return key in pool.config.senders or key.rpartition("@")[2] in pool.config.senders


def _accepts(pool: Pool, sender: str) -> bool:
    rule = pool.rule
    return not sender or not rule.must_equal_login or rule.rewrite_from or email_key(sender) == email_key(rule.login)
