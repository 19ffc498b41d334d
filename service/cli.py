"""The `postroom` command: one small function for each subcommand.

postroom dev        everything on this machine: var/dev.db, capture relay, /inbox, /docs, no key needed
postroom serve      the service, configured by POSTROOM_* (see docs/settings.md)
postroom migrate    bring the store's schema up to date, in two phases if need be
postroom backup     copy a SQLite store while it runs
postroom move       take all mail from a SQLite file to PostgreSQL, or back
postroom queue      show what waits, cancel or release what a restored copy holds
postroom keys       create, list and revoke API keys
postroom relay      list, show and check relays; what is known of providers
postroom dkim       make DKIM keys, show their DNS records
postroom template   make, check, render and try templates
postroom openapi    write the OpenAPI document
postroom demo       start a service, send every template over real SMTP, print each timeline
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from service import apart, dkim_commands, failpoints, queue_commands, relay_commands, store_commands, template_commands
from service import settings as configuration
from service.clock import SYSTEM, rfc3339
from service.errors import PostroomError
from service.secret_files import write_secret
from service.settings import Settings
from service.telemetry import configure_logging

_CANCEL_AGAIN = 1.0  # seconds in which what is cancelled may put things in order


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit status: 0 done, 1 refused with a sentence on stderr, 2 wrong usage, 141 nobody reads on."""
    # As process 1 of a container a signal without a handler is not delivered: a start that waits could not be stopped.
    signal.signal(signal.SIGTERM, _terminated)
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if not hasattr(chosen, "run"):
        parser.print_help()
        return 2
    try:
        result: int | None = chosen.run(chosen)
        print(end="", flush=True)
    except BrokenPipeError:
        return _unread()
    except PostroomError as error:
        faults = [f"{each.pointer.removeprefix('#/')}: {each.detail}" for each in error.errors]
        for told in faults or [error.detail]:
            print(f"postroom: {told}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return result or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="postroom", description="Transactional email over your own relays.")
    parser.add_argument("--version", action="version", version=f"postroom {version('postroom')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int | None], words: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=words, description=words)
        command.set_defaults(run=run)
        return command

    dev = add("dev", _dev, "Run everything on this machine, with a capture relay and an inbox.")
    dev.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    dev.add_argument("--port", type=int, help="port to listen on (default 8000)")
    dev.add_argument("--relays", action="store_true", help="send by the configured relays instead of capturing")
    serve = add("serve", _serve, "Run the service as POSTROOM_* configures it.")
    serve.add_argument("--role", choices=("all", "api", "sender", "apart"), help="what this process does")
    serve.add_argument("--until-stdin-ends", action="store_true", help=argparse.SUPPRESS)
    serve.add_argument("--hold", action="store_true", default=None, help="start with sending held")
    store_commands.register_migrate(add("migrate", _usage, "Bring the store's schema up to date."))
    store_commands.register_backup(add("backup", _usage, "Copy a SQLite store while it runs."))
    store_commands.register_move(add("move", _usage, "Take all mail from a SQLite file to PostgreSQL, or back."))
    queue_commands.register(
        add("queue", _usage, "Show what waits; cancel or release what a restored copy holds."), _run, _store
    )
    openapi = add("openapi", _openapi, "Write the OpenAPI document.")
    openapi.add_argument("--output", type=Path, help="file to write; default: standard output")
    add("demo", _demo, "Start a service, send every template over real SMTP, print each timeline.")
    _add_keys(add("keys", _usage, "Create, list and revoke API keys."))
    relay_commands.register(add("relay", _usage, "List, show and check relays."), _run)
    dkim_commands.register(add("dkim", _usage, "Make DKIM keys, show their DNS records."))
    template_commands.register(add("template", _usage, "Make, check, render and try templates."))
    return parser


def _add_keys(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    create = commands.add_parser("create", help="make a key and print it, once")
    create.set_defaults(run=_keys_create)
    create.add_argument("name")
    create.add_argument("--account", default="default")
    create.add_argument(
        "--scope",
        action="append",
        choices=("send", "read", "content", "admin"),
        help="give it once for each; default: send and read",
    )
    create.add_argument("--from", dest="from_allowed", action="append", default=[], metavar="ADDRESS_OR_DOMAIN")
    create.add_argument("--rate", help="for example 100/s")
    listing = commands.add_parser("list", help="show all keys, without their secrets")
    listing.set_defaults(run=_keys_list)
    listing.add_argument("--account")
    revoke = commands.add_parser("revoke", help="end a key at once")
    revoke.set_defaults(run=_keys_revoke)
    revoke.add_argument("id")
    generate = commands.add_parser("generate", help="make a key for POSTROOM_BOOTSTRAP_KEY_FILE")
    generate.set_defaults(run=_keys_generate)
    generate.add_argument("--output", type=Path, help="file to write, readable by its owner alone; default: print it")


def _usage(_: argparse.Namespace) -> int:
    return 2


def _run(work: Coroutine[Any, Any, int | None]) -> int | None:
    try:
        import uvloop
    except ImportError:  # no uvloop on Windows
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_until_signalled(work))


async def _until_signalled(work: Coroutine[Any, Any, int | None]) -> int | None:
    """On SIGTERM and Ctrl+C `work` is cancelled until it ends: Python 3.11's wait_for loses a cancel that comes with its result,
    and what a handler raises is lost where it falls on a callback of the loop. A service that listens has handlers of its own.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    came = 0

    def end(number: int) -> None:
        nonlocal came
        came = number
        task.cancel()
        loop.call_later(_CANCEL_AGAIN, end, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    try:
        return await work
    except asyncio.CancelledError:
        if not came:
            raise
        loop.remove_signal_handler(signal.SIGINT)  # what is left, such as a thread, Ctrl+C interrupts at once
        sys.exit(128 + came)


def _unread() -> int:
    """Standard output was closed by its reader, as `| head` does: the end that a shell expects of SIGPIPE, and no traceback."""
    # What is still in the buffer goes nowhere: Python flushes it once more when it ends, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _terminated(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _overrides(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


# --- running ----------------------------------------------------------------------------------------------------------


def _dev(chosen: argparse.Namespace) -> int | None:
    settings = configuration.load(
        **_overrides(
            host=chosen.host, port=chosen.port, drain_delay=0, drain_grace=5, log_format="console", templates_watch=True
        )
    )
    settings = _open_on_loopback(settings)
    if not chosen.relays:
        settings = _captured(settings)
    configure_logging(settings.log_level, settings.log_format, addresses=settings.log_addresses)
    return _run(_dev_main(settings))


def _captured(settings: Settings) -> Settings:
    """Whatever relays the environment names, nothing leaves; and mail of a real queue is not swallowed by the capture."""
    apart: dict[str, Any] = {"relay_url": None, "relay_url_file": None, "relays_file": None}
    if "database_url" not in settings.model_fields_set:
        apart["database_url"] = "sqlite:///var/dev.db"
    return settings.model_copy(update=apart)


def _open_on_loopback(settings: Settings) -> Settings:
    loopback = settings.host in {"127.0.0.1", "::1", "localhost"}
    return settings.model_copy(update={"auth": "none"}) if loopback else settings


async def _dev_main(settings: Settings) -> int | None:
    from service.serving import serve

    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    capture = settings.relay_url is None and settings.relay_url_file is None and settings.relays_file is None
    ready.add_done_callback(lambda port: _greet(settings.host, port.result(), capture))
    return await serve(settings, capture=capture, ready=ready)


def _greet(host: str, port: int, capture: bool) -> None:
    shown = f"[{host}]" if ":" in host else host
    base = f"http://{shown}:{port}"
    where = f"Mail is captured and shown at {base}/inbox" if capture else "Mail goes out by the configured relays."
    print(
        f"\nPostroom is running. {where}\n"
        f"  API docs  {base}/docs\n"
        "  try       curl -s " + base + "/send -H 'Content-Type: application/json' \\\n"
        '              -d \'{"from":"zoucz <zouchengzhuo@163.com>","to":"zoucz <405966530@qq.com>",'
        '"subject":"测试SMTP发送邮件","text":"你好"}\'\n'
        "  stop      Ctrl+C\n",
        flush=True,
    )


def _serve(chosen: argparse.Namespace) -> int | None:
    from service.serving import serve

    settings = configuration.load(**_overrides(role=chosen.role, hold=chosen.hold))
    configure_logging(settings.log_level, settings.log_format, addresses=settings.log_addresses)
    if settings.role == "apart":
        return _run(apart.run(settings, ["--hold"] if chosen.hold else []))
    failpoints.arm(settings.failpoints, allowed=settings.failpoints_allowed)
    return _run(serve(settings, until_stdin_ends=chosen.until_stdin_ends))


def _openapi(chosen: argparse.Namespace) -> int:
    from service.api.openapi import document

    text = json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
    if chosen.output:
        chosen.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


def _demo(_: argparse.Namespace) -> int | None:
    from service.demo import demo

    configure_logging("warning", "console")
    return _run(demo())


# --- keys -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _store() -> AsyncIterator[Any]:
    from service.store import bounds_of, open_store

    settings = configuration.load()
    configure_logging("warning", "console")
    store = open_store(settings.database_url, SYSTEM, holder=SYSTEM.new_id("cli-"), bounds=bounds_of(settings))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _keys_create(chosen: argparse.Namespace) -> int | None:
    from service.spool.keys import Keys

    async def work() -> int:
        async with _store() as store:
            key, token = await Keys(SYSTEM, store).create(
                chosen.account, chosen.name, chosen.scope or ("send", "read"), chosen.from_allowed, chosen.rate
            )
        print(token)
        print(f"{key.id}: account {key.account}, scopes {', '.join(key.scopes)}. Shown this once.", file=sys.stderr)
        return 0

    return _run(work())


def _keys_list(chosen: argparse.Namespace) -> int | None:
    from service.spool.keys import Keys

    async def work() -> int:
        async with _store() as store:
            for key in await Keys(SYSTEM, store).list(chosen.account):
                state = "revoked" if key.revoked_at else "active"
                print(f"{key.id}  {key.account}  {key.name}  {key.prefix}...  {state}  {rfc3339(key.created_at)}")
        return 0

    return _run(work())


def _keys_revoke(chosen: argparse.Namespace) -> int | None:
    from service.spool.keys import Keys

    async def work() -> int:
        async with _store() as store:
            if await Keys(SYSTEM, store).revoke(None, chosen.id):
                return 0
        print(f"postroom: no active key {chosen.id}", file=sys.stderr)
        return 1

    return _run(work())


def _keys_generate(chosen: argparse.Namespace) -> int:
    from service.spool.keys import MARK

    token = MARK + SYSTEM.token()
    if chosen.output is None:
        print(token)
        return 0
    write_secret(chosen.output, token.encode() + b"\n")
    print(f"{chosen.output}: a key that is admin of an empty store; give its path as POSTROOM_BOOTSTRAP_KEY_FILE.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
