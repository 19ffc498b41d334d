"""`postroom migrate`, `backup FILE` and `move --from URL --to URL`: whole stores are changed or copied, and services are told."""

import argparse
import sys
from pathlib import Path

from service import settings as configuration
from service.clock import SYSTEM, rfc3339
from service.errors import ConfigurationError
from service.store.migrate import Wanted
from service.store.queries import Phase
from service.store.whole import back_up_store, migrate_store, move_store, unmark_store


def register_migrate(parser: argparse.ArgumentParser) -> None:
    """The command `migrate`."""
    parser.add_argument(
        "--phase",
        choices=[phase.value for phase in Phase],
        help="pre: what processes of this version need, before they start; post: what takes away what the version before"
        " uses, after its processes have ended; default: both, and post only if none of those runs",
    )
    parser.add_argument("--force", action="store_true", help="steps of phase post do not wait for older processes")
    parser.set_defaults(run=_migrate)


def register_backup(parser: argparse.ArgumentParser) -> None:
    """The command `backup`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the copy; nothing is overwritten")
    parser.set_defaults(run=_back_up)


def register_move(parser: argparse.ArgumentParser) -> None:
    """The command `move`. A password is better given by PGPASSFILE than in a URL that others may see in a process list."""
    parser.add_argument(
        "--from", dest="origin", metavar="URL", help="the store whose mail moves; stop its services first"
    )
    parser.add_argument("--to", dest="destination", metavar="URL", help="an empty store of the other kind")
    parser.add_argument("--unmark", metavar="URL", help="let a store be used again whose move was given up")
    parser.set_defaults(run=_move)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _migrate(chosen: argparse.Namespace) -> None:
    settings, phase = configuration.load(), chosen.phase and Phase(chosen.phase)
    done = migrate_store(settings.database_url, settings.database_connect_timeout, Wanted(phase, force=chosen.force))
    for title in done.applied:
        print(f"applied {title}")
    for title in done.left:
        waits = f"it waits for {', '.join(done.older)}, which an older version runs" if done.older else "phase post"
        print(f"left    {title}: {waits}")
    print("The schema is ready for this version." if done.left else "The schema is up to date.")


def _back_up(chosen: argparse.Namespace) -> None:
    done = back_up_store(configuration.load().database_url, chosen.file, SYSTEM, _say)
    print(
        f"{chosen.file}: {done.octets / 1e6:,.1f} MB, the store as it was at {rfc3339(done.at)};"
        f" copied in {done.copying:.1f} s, checked in {done.checking:.1f} s. A service that opens it sends nothing until"
        " `postroom queue release`."
    )


def _move(chosen: argparse.Namespace) -> None:
    if chosen.unmark is not None:
        _unmark(chosen)
        return
    if chosen.origin is None or chosen.destination is None:
        raise ConfigurationError("postroom move needs --from and --to, or --unmark alone")
    done = move_store(chosen.origin, chosen.destination, SYSTEM, _say)
    for table, checked in done.tables.items():
        if checked.rows:
            print(f"{table:<20} {checked.rows:>12,} rows  {checked.total:032x}")
    print(
        f"{done.rows:,} rows moved and compared in {done.seconds:.1f} s. The source keeps its rows and is not opened any"
        " more; give POSTROOM_DATABASE_URL the new URL."
    )


def _unmark(chosen: argparse.Namespace) -> None:
    if chosen.origin is not None or chosen.destination is not None:
        raise ConfigurationError("postroom move needs --from and --to, or --unmark alone")
    print("It can be used again." if unmark_store(chosen.unmark) else "It was not marked as moved.")
