"""The only SMTP client. `open_relays` reads the configuration and makes the pools; sessions are opened with the first mail."""

import asyncio

from service.clock import Clock
from service.errors import ConfigurationError
from service.relay.config import RelayConfig, load_relays
from service.relay.port import Ledger
from service.relay.router import Reloaded, Router
from service.settings import Settings


def open_relays(settings: Settings, clock: Clock, extra_url: str | None = None, ledger: Ledger | None = None) -> Router:
    """The configured relays, or the one at `extra_url` when none is. Raises ConfigurationError.

    ledger: what all processes know of their accounts; without one they are this process's alone.
    """
    return Router(_configured(settings, extra_url), settings, clock, ledger)


async def reload_relays(router: Router, settings: Settings, extra_url: str | None = None) -> Reloaded:
    """Read the configuration again, and take it if there is no fault in it. One call at a time.

    Raises ConfigurationError; then everything stays as it was.
    """
    return await router.reload(await asyncio.to_thread(_configured, settings, extra_url))


def _configured(settings: Settings, extra_url: str | None) -> list[RelayConfig]:
    """A process that sends must have a relay; one of role `api` may start without."""
    configs = load_relays(settings, extra_url)
    if not configs and settings.role != "api":
        raise ConfigurationError(
            "No relay is configured: set POSTROOM_RELAY_URL, for example smtps://name%40163.com:CODE@smtp.163.com,"
            " or POSTROOM_RELAYS_FILE (`postroom dev` needs none: it captures all mail)"
        )
    return configs
