"""The linter over every message that is composed in this process, whatever a test is about.

What the gate lets pass and what the seal puts on the wire is kept, and linted when the test is over, so that no clock in
the test is disturbed. Services that run as processes of their own are out of reach: their sinks lint what they take.
"""

import sys
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.rfc_lint import lint


class Linted:
    """Stands between the spool and its gate and seal. A test that has not loaded the spool does not load it for this."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._kept: list[tuple[Sequence[bytes], bool]] = []
        for module, name, wrap in (
            ("service.spool.prepare", "inspect", self._after_inspect),
            ("service.spool.dispatch", "seal", self._after_seal),
        ):
            if loaded := sys.modules.get(module):
                monkeypatch.setattr(loaded, name, wrap(getattr(loaded, name)))

    def _after_inspect(self, inspect: Any) -> Any:
        def linted(composed: Any) -> None:
            inspect(composed)
            self._kept.append((composed.segments, composed.smtputf8))

        return linted

    def _after_seal(self, seal: Any) -> Any:
        def linted(*given: Any) -> Any:
            sealed = seal(*given)
            self._kept.append((sealed.segments, any(eai for _, eai in self._kept)))
            return sealed

        return linted

    def faults(self) -> list[str]:
        """What is wrong with any message so far."""
        return [fault for segments, eai in self._kept for fault in lint(b"".join(segments), eai=eai)]
