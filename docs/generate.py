"""Write the generated parts of the docs anew, each from the code that it tells of.

The state diagram from mail/lifecycle, the settings tables from settings, and for template authors the filters of mail/sandbox,
what those of mail/formats write, and the rules of mail/lint; what
replies mean from relay/policy.toml. Run as `make docs`. A test fails when what is committed differs.
"""

import re
import textwrap
import types
import typing
from collections.abc import Iterable
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.replies import policy_table
from service.mail.lifecycle import INITIAL, OPEN, TRANSITIONS, State
from service.mail.lint import RULES
from service.mail.render import compile_template
from service.mail.sandbox import environment
from service.mail.template import parse_files
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


# the settings that one needs first, for README
_FIRST = (
    "relay_url", "relay_url_file", "relays_file", "database_url", "host", "port", "bootstrap_key_file", "templates_dir",
    "dkim_file", "redirect_all_to",
)  # fmt: skip


def settings_table(names: Iterable[str] = tuple(Settings.model_fields)) -> str:
    """The table of docs/settings.md, or of some of them."""
    rows = ["| variable | default | what it does |", "|---|---|---|"]
    for name in names:
        field = Settings.model_fields[name]
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


def lint_table() -> str:
    """The rules of the lint, for docs/templates.md."""
    rows = [f"| `{rule}` | {severity} | {why} |" for rule, (severity, why) in RULES.items()]
    return "\n".join(["| rule | severity | why |", "|---|---|---|", *rows]) + "\n"


_LANGUAGES = ("en", "de", "fr", "zh-CN")
_AT = '"2026-11-27T18:30:00+08:00"'
_FORMATS = (
    '"1234.5"|currency("EUR")',
    '1500|currency("JPY")',
    "1234567.891|number",
    "0.256|percent",
    '"2026-11-27"|date',
    '"2026-11-27"|date("short")',
    '"2026-11-27"|date("long")',
    '"2026-11-27"|date("full")',
    f"{_AT}|datetime",
    f'{_AT}|datetime("short", tz="Asia/Shanghai")',
    f"{_AT}|time",
    '["A", "B", "C"]|listing',
)


def formats_table() -> str:
    """What the filters really write, for docs/templates.md."""
    rows = [f"| expression | {' | '.join(_LANGUAGES)} |", "|---|" + "---|" * len(_LANGUAGES)]
    for expression in _FORMATS:
        shown = expression.replace("|", "\\|")
        rows.append(f"| `{shown}` | {' | '.join(_written(expression, tag) for tag in _LANGUAGES)} |")
    return "\n".join(rows) + "\n"


def _written(expression: str, language: str) -> str:
    head = f'locale = "{language}"\nsubject = "-"\n'
    files = {"template.toml": head, "html.j2": "-", "text.j2": f"{{{{ {expression} }}}}"}
    template = compile_template(parse_files("example", files))
    return template.render({}, None, deadline=1.0, monotonic=lambda: 0.0, max_bytes=1000).text or ""


def filters_list() -> str:
    """The filters that templates may use, for docs/templates.md."""
    names = sorted(name for name in environment({}, html=True).filters if not name.startswith("_"))
    return textwrap.fill(", ".join(f"`{name}`" for name in names) + ".", 120) + "\n"


def relays(text: str) -> str:
    """docs/relays.md with the reply policy."""
    return between(text, "replies", "service/relay/policy.toml", policy_table())


def between(text: str, name: str, source: str, table: str) -> str:
    """`text` with what stands between the marks of `name` replaced by `table`."""
    start, end = (mark.format(name, source) for mark in _MARKS)
    pattern = re.compile(re.escape(start) + r".*?" + re.escape(end), re.S)
    if not pattern.search(text):
        raise SystemExit(f"the marks of the {name} table are missing")
    return pattern.sub(lambda _: start + table + end, text)


def readme(text: str) -> str:
    """README with the settings that one needs first."""
    return between(text, "first settings", "service/settings.py", settings_table(_FIRST))


def settings(text: str) -> str:
    """docs/settings.md with all settings."""
    return between(text, "settings", "service/settings.py", settings_table())


def templates(text: str) -> str:
    """docs/templates.md with the formats, the filters and the lint's rules."""
    text = between(text, "formats", "service/mail/formats.py", formats_table())
    text = between(text, "filters", "service/mail/sandbox.py", filters_list())
    return between(text, "lint rules", "service/mail/lint.py", lint_table())


def documents() -> dict[Path, str]:
    """Every generated file and its text."""
    made = {ROOT / "docs" / "lifecycle.md": lifecycle()}
    for name, write in (
        ("README.md", readme),
        ("docs/settings.md", settings),
        ("docs/templates.md", templates),
        ("docs/relays.md", relays),
    ):
        made[ROOT / name] = write((ROOT / name).read_text(encoding="utf-8"))
    return made


def main() -> None:
    """Write them."""
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
