"""The table of docs/relays.md that tells what replies mean, made from service/relay/policy.toml."""

from collections.abc import Mapping
from typing import Any

from service.relay.policy import rule_tables

_LONG = 120  # characters of a pattern that a table bears


def policy_table() -> str:
    """What replies mean, row by row, for docs/relays.md."""
    rows = ["| # | class | reply | fault of | what is done | why |", "|---|---|---|---|---|---|"]
    for number, table in enumerate(rule_tables(), 1):
        cells = (number, f"`{table.get('class', table['name'])}`", _reply_of(table), table["scope"], _done_about(table))
        rows.append("| " + " | ".join(map(str, cells)) + f" | {_cell(table['why'])} |")
    return "\n".join(rows) + "\n"


def _reply_of(table: Mapping[str, Any]) -> str:
    parts = [" ".join(table.get("presets", ())), " ".join(table.get("phases", ()))]
    before = ", ".join(part for part in parts if part)
    codes = [*table.get("codes", ()), *(code or "no enhanced code" for code in table.get("enhanced", ()))]
    words = [f"`{_short(table[key])}`" if key == "text" else f"not `{_short(table[key])}`"
             for key in ("text", "unless") if key in table]  # fmt: skip
    return _cell((f"{before}: " if before else "") + "; ".join([" ".join(codes), *words]).removeprefix("; "))


def _done_about(table: Mapping[str, Any]) -> str:
    parts = [table["action"]]
    if "wait" in table:
        parts.append(f"after {table['wait']}")
    if "told_wait" in table:
        parts.append(f"as told, up to {table['told_wait']}")
    if "times" in table:
        parts.append(f"{table['times']} times, then {table['then']}")
    elif "then" in table:
        parts.append(f"then {table['then']}")
    if "at_expiry" in table:
        parts.append(f"{table['at_expiry']} at the expiry")
    if "pause" in table:
        parts.append("rests " + ", ".join(table["pause"]))
    if "pause_max" in table:
        parts.append(f"doubling up to {table['pause_max']}")
    if "learn" in table:
        parts.append(f"fewer {table['learn']}")
    if table.get("suppress"):
        parts.append("**suppresses**")
    if "alert" in table:
        parts.append("alert" if table["alert"] is True else f"alert from the {table['alert']}rd time on")
    return "; ".join(parts)


def _short(pattern: str) -> str:
    return pattern if len(pattern) <= _LONG else pattern[:_LONG] + " ..."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
