"""`postroom dkim generate | records`: make a key, and show what DNS must say for the keys that are configured."""

import argparse
import json
from pathlib import Path
from typing import Any

from service import settings as configuration
from service.clock import SYSTEM, rfc3339
from service.errors import ConfigurationError, PostroomError
from service.mail.address import parse_domain
from service.mail.dkim_keys import DkimKey, generate, is_selector, load_private, zone_line
from service.secret_files import write_secret
from service.spool.signing import load_ring


def register(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Any, words: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=words, description=words)
        command.set_defaults(run=run)
        return command

    make = add(
        "generate", _generate, "Write a new private key; show its DNS record and its line for POSTROOM_DKIM_FILE."
    )
    make.add_argument("domain", help="the domain in From, for example example.com")
    make.add_argument("selector", help="a name for the key, for example pr2026")
    make.add_argument("file", type=Path, help="where the private key goes; it must not exist")
    make.add_argument("--kind", choices=("rsa", "ed25519"), default="rsa", help="default: rsa, 2048 bits")
    add("records", _records, "Show the DNS records of the keys in POSTROOM_DKIM_FILE.")


def _generate(chosen: argparse.Namespace) -> int:
    try:
        domain = parse_domain(chosen.domain, "domain")
    except PostroomError as error:
        raise ConfigurationError(f"{chosen.domain}: {error.errors[0].detail}") from None
    if not is_selector(chosen.selector):
        raise ConfigurationError(f"{chosen.selector}: a selector is a name such as pr2026 (RFC 6376 3.1)")
    pem = generate(chosen.kind)
    write_secret(chosen.file, pem)
    key = DkimKey(domain, chosen.selector, load_private(pem))
    print(f"{chosen.file}: private key, {key.algorithm}. Publish this record, wait until it is everywhere:\n")
    print(f"  {zone_line(key)}\n\nThen put this line into POSTROOM_DKIM_FILE, between the brackets of")
    print(f'`keys = [ ]` in the table [domains."{domain}"]; docs/dkim.md shows a whole file:\n')
    print(f'  {{ selector = "{key.selector}", file = {json.dumps(str(chosen.file.resolve()), ensure_ascii=False)} }},')
    return 0


def _records(_: argparse.Namespace) -> int:
    file = configuration.load().dkim_file
    if file is None:
        raise ConfigurationError("POSTROOM_DKIM_FILE is not set")
    ring = load_ring(file)
    for key in ring.keys:
        bounds = [f"{word} {rfc3339(at)}" for word, at in (("from", key.since), ("until", key.until)) if at is not None]
        print(f"; {key.algorithm}{', signs ' + ' '.join(bounds) if bounds else ''}\n{zone_line(key)}")
    for domain, at in ring.gaps(SYSTEM.now()):
        print(f"; WARNING: from {rfc3339(at)} no key of {domain} is valid: its mail goes unsigned")
    return 0
