"""The only SMTP client. `open_relays` reads the configuration and makes the pools; sessions are opened with the first mail."""

from service.clock import Clock
from service.errors import ConfigurationError
from service.relay.config import load_relays
from service.relay.router import Router
from service.settings import Settings


def open_relays(settings: Settings, clock: Clock, extra_url: str | None = None) -> Router:
    """The configured relays, or the one at `extra_url` when none is. Raises ConfigurationError.

    A process that sends must have a relay; one of role `api` may start without.
    """
    configs = load_relays(settings, extra_url)
    if not configs and settings.role != "api":
        raise ConfigurationError(
            "No relay is configured: set POSTROOM_RELAY_URL, for example smtps://name%40163.com:CODE@smtp.163.com,"
            " or POSTROOM_RELAYS_FILE (`postroom dev` needs none: it captures all mail)"
        )
    return Router(configs, settings, clock)
