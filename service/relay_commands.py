"""`postroom relay list | show | presets | check`: what is configured, what is known of providers, and whether it works."""

import argparse
from collections.abc import Callable, Coroutine, Sequence
from difflib import get_close_matches
from typing import Any

from service import settings as configuration
from service.errors import ConfigurationError, PostroomError, RelayNotFound
from service.mail.address import make_mailbox
from service.relay.config import RelayConfig, load_relays, relay_tables
from service.relay.presets import load_presets
from service.relay.shown import shown_preset, shown_relay
from service.relay_check_command import check_relays

Runner = Callable[[Coroutine[Any, Any, int | None]], int | None]

_NEAR = 0.5  # how alike a name must be to be meant, of 1: names are short, and a wrong guess does no harm


def register(parser: argparse.ArgumentParser, run: Runner) -> None:
    """Add the subcommands; `run` runs a coroutine on the event loop of the service."""
    parser.epilog = "A running service pauses and resumes a relay: POST /relays/NAME/pause, POST /relays/NAME/resume."
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, work: Callable[[argparse.Namespace], int | None], words: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=words, description=words)
        command.set_defaults(run=work)
        return command

    add("list", _list, "Show the configured relays, best first.")
    add("presets", _presets, "Show all providers that are known.")
    show = add("show", _show, "Show all that is known of a configured relay or a preset, as TOML for a relays file.")
    show.add_argument("name", help="a configured relay, or a preset such as 163")
    walk = add(
        "check", lambda chosen: run(_check(chosen)), "Walk DNS, TCP, TLS, EHLO, AUTH and MAIL FROM; send nothing."
    )
    walk.add_argument("name", nargs="?", help="default: all relays")
    walk.add_argument("--json", action="store_true", help="for machines")
    walk.add_argument("--from", dest="sender", type=_address, metavar="ADDRESS", help="for MAIL FROM")
    walk.add_argument(
        "--force", action="store_true", help="log in though the account rests after a refused login, once a minute"
    )


def _address(text: str) -> str:
    try:
        return make_mailbox(text, "", "from").email
    except PostroomError as error:
        raise argparse.ArgumentTypeError(error.errors[0].detail if error.errors else error.detail) from None


def _list(_: argparse.Namespace) -> int:
    rows = [("NAME", "ENDPOINT", "TLS", "PRESET", "USER", "PRIORITY", "FROM")]
    rows += [
        (
            each.name,
            f"{each.host}:{each.port}",
            each.tls.value,
            each.preset.name or "-",
            each.shown_user or "-",
            str(each.priority),
            _senders(each),
        )
        for each in _configured()
    ]
    _print_table(rows)
    return 0


def _senders(config: RelayConfig) -> str:
    if config.senders:
        return " ".join(config.senders)
    return config.user if config.rule.must_equal_login and not config.rule.rewrite_from else "any"


def _presets(_: argparse.Namespace) -> int:
    rows = [("PRESET", "HOSTS", "SMTPS", "STARTTLS", "AUTH", "SENDER")]
    rows += [
        (
            each.name,
            " ".join(each.hosts),
            " ".join(map(str, each.implicit)) or "-",
            " ".join(map(str, each.starttls)) or "-",
            " ".join(each.auth),
            "the login" if each.sender_is_login else "as it allows",
        )
        for each in load_presets().values()
    ]
    _print_table(rows)
    return 0


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _show(chosen: argparse.Namespace) -> int:
    """A configured relay hides a preset of the same name: it shows which preset it has."""
    settings, presets = configuration.load(), load_presets()
    tables, _ = relay_tables(settings)
    if chosen.name in tables:
        config = next(each for each in load_relays(settings) if each.name == chosen.name)
        print(shown_relay(config, tables[chosen.name][1]), end="")
    elif chosen.name in presets:
        print(shown_preset(presets[chosen.name]), end="")
    else:
        raise _unknown(chosen.name, [*tables, *presets], "relay or preset")
    return 0


async def _check(chosen: argparse.Namespace) -> int:
    configs = _configured()
    if chosen.name is not None:
        configs = [each for each in configs if each.name == chosen.name] or _missing(chosen.name, configs)
    return await check_relays(
        configs, configuration.load(), sender=chosen.sender or "", force=chosen.force, as_json=chosen.json
    )


def _configured() -> list[RelayConfig]:
    """By priority. Raises ConfigurationError when there is none."""
    configs = sorted(load_relays(configuration.load()), key=lambda config: config.priority)
    if not configs:
        raise ConfigurationError("No relay is configured: set POSTROOM_RELAY_URL or POSTROOM_RELAYS_FILE")
    return configs


def _missing(name: str, configs: Sequence[RelayConfig]) -> list[RelayConfig]:
    raise _unknown(name, [config.name for config in configs], "relay")


def _unknown(name: str, known: Sequence[str], what: str) -> RelayNotFound:
    near = get_close_matches(name, known, 1, _NEAR)
    meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
    return RelayNotFound(f"There is no {what} {name!r}{meant}")
