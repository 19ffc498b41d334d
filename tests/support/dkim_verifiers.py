"""Two verifiers of DKIM signatures that nobody here wrote: dkimpy, and mailauth from npm, with DNS from a table."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dkim
import pytest

from service.mail.dkim_keys import DkimKey

ORACLES = Path(__file__).resolve().parents[1] / "oracles"

Verify = Callable[[bytes, Iterable[DkimKey]], list[str]]


def records_of(keys: Iterable[DkimKey]) -> dict[str, str]:
    """What DNS would say."""
    return {key.host: key.record for key in keys}


def by_dkimpy(raw: bytes, keys: Iterable[DkimKey]) -> list[str]:
    """`pass` or `fail` for each signature, from the top down."""
    records = records_of(keys)

    def lookup(name: bytes, timeout: int = 5) -> bytes | None:
        text = records.get(name.decode().rstrip("."))
        return text.encode() if text is not None else None

    verifier = dkim.DKIM(raw)
    count = sum(name.lower() == b"dkim-signature" for name, _ in verifier.headers)
    results = []
    for index in range(count):
        try:
            results.append("pass" if verifier.verify(index, dnsfunc=lookup) else "fail")
        except dkim.DKIMException:
            results.append("fail")
    return results


def require_mailauth() -> None:
    """Skip, loudly, where npm's packages are not installed."""
    if shutil.which("node") is None or not (ORACLES / "node_modules" / "mailauth").is_dir():
        pytest.skip("npm's mailauth is not installed: it did NOT verify our DKIM signatures (make setup, with npm)")


def mailauth() -> Iterator[Verify]:
    """One node process; yields a function like `by_dkimpy`."""
    require_mailauth()
    process = subprocess.Popen(
        ["node", "verify_dkim.cjs"], cwd=ORACLES, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def verify(raw: bytes, keys: Iterable[DkimKey]) -> list[str]:
        asked: Mapping[str, Any] = {"message": base64.b64encode(raw).decode(), "records": records_of(keys)}
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert isinstance(answer, list), answer
        return [each["result"] for each in answer]

    yield verify
    process.stdin.close()
    process.wait(10)
