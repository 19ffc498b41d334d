"""Write the generated parts of the docs anew: the state diagram from mail/lifecycle, the settings table from settings.

Run as `make docs`. A test fails when what is committed differs.
"""

import re
import types
import typing
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from service.mail.lifecycle import INITIAL, OPEN, TRANSITIONS, State
from service.settings import PREFIX, Seconds, Settings

ROOT = Path(__file__).resolve().parent.parent
_MARKS = "<!-- {0}: made by `make docs` from {1} -->\n", "<!-- end of {0} -->"


def lifecycle() -> str:
    """docs/lifecycle.md: the diagram (Mermaid) and the table."""
    arrows = [f"    [*] --> {state}" for state in INITIAL]
    arrows += [f"    {before} --> {after}: {event}" for (before, event), after in TRANSITIONS.items()]
    rows = [f"| {before} | {event} | {after} |" for (before, event), after in TRANSITIONS.items()]
    closed = ", ".join(f"`{state}`" for state in State if state not in OPEN)
    return "\n".join(
        [
            "# The life of a recipient",
            "",
            "Made by `make docs` from `service/mail/lifecycle.py`; do not edit.",
            "",
            "A recipient, one address of one message, is the unit that has a state. `sent` means that the relay",
            "answered 2yz after the final dot; it never claims an inbox. The status of a message is computed from its",
            "recipients, the first rule that holds: scheduled; any sending; any deferred; any queued; all sent; some",
            "sent (`partially_sent`); any unknown; the common state; failed.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            *arrows,
            "```",
            "",
            f"Closed states: {closed}. Some of them are left again, by `retry` or on evidence from outside.",
            "",
            "| state | event | next state |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def settings_table() -> str:
    """The README's table."""
    rows = ["| variable | default | what it does |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{PREFIX}{name.upper()}` | {_default(field)} | {field.description} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value is PydanticUndefined or value == ():
        return "" if not _is_secret(field) else "(secret)"
    if isinstance(value, tuple):
        return "`" + " ".join(f"{part:g}" if isinstance(part, float | int) else str(part) for part in value) + "`"
    return f"`{value}`" + (" s" if _is_seconds(field) else "")


def _is_seconds(field: FieldInfo) -> bool:
    return any(part in typing.get_args(Seconds)[1:] for part in field.metadata) and field.annotation is float


def _is_secret(field: FieldInfo) -> bool:
    annotation = field.annotation
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return SecretStr in options


def readme(text: str) -> str:
    """README with the table between its marks replaced."""
    start, end = (mark.format("settings", "service/settings.py") for mark in _MARKS)
    pattern = re.compile(re.escape(start) + r".*?" + re.escape(end), re.S)
    if not pattern.search(text):
        raise SystemExit("README.md lacks the marks of the settings table")
    return pattern.sub(lambda _: start + settings_table() + end, text)


def documents() -> dict[Path, str]:
    """Every generated file and its text."""
    front = ROOT / "README.md"
    return {ROOT / "docs" / "lifecycle.md": lifecycle(), front: readme(front.read_text(encoding="utf-8"))}


def main() -> None:
    """Write them."""
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
