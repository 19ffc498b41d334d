"""Tables on the terminal, and the same with pictures in docs/performance.md between their marks."""

import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.rivals import install
from bench.rivals.picture import Bar, bars
from bench.rivals.turns import OPEN_LOOP, Record
from bench.rivals.work import Variant

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "performance"
MARKS = "<!-- rivals: made by `python -m bench.rivals --write` -->\n", "<!-- end of rivals -->"
Results = Sequence[tuple[Variant, Sequence[Record]]]


def machine() -> str:
    """The machine of this run, in a line."""
    model = "unknown processor"
    cpus = Path("/proc/cpuinfo")
    if cpus.exists() and (found := re.search(r"^model name\s*:\s*(.+)$", cpus.read_text(), re.M)):
        model = found[1]
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return f"{model}, {os.cpu_count()} cores, {gibibytes:.0f} GiB, {system}; {_disk()}; load before the run {load}"


def _disk(count: int = 100) -> str:
    """What it costs to have 4 KiB on the disk that holds temporary files, as all stores of the benchmarks are."""
    took: list[float] = []
    with tempfile.TemporaryFile() as file:
        for _ in range(count):
            began = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return f"4 KiB and fsync {statistics.median(took) * 1000:.2f} ms"


# --- rows -----------------------------------------------------------------------------------------------------------


def ratio(ours: Record, other: Record) -> str:
    """Postroom's rate by the other's, from the medians."""
    if other is ours or not other.turns or not ours.turns or not other.rate:
        return ""
    return f"{ours.rate / other.rate:.2f}"


def spread(record: Record) -> str:
    """Median rate, and the least and the most of its turns."""
    rates = [turn.rate for turn in record.turns]
    return f"{record.rate:.0f} ({min(rates):.0f}-{max(rates):.0f})" if rates else "-"


def latencies(record: Record) -> str:
    """p50 / p95 / p99 of the open loop."""
    turn = record.latency
    return f"{turn.p50:.1f} / {turn.p95:.1f} / {turn.p99:.1f}" if turn is not None else "-"


def left_out(record: Record) -> str:
    """What the rival does not do, in words."""
    promises = record.rival.promises
    words = {
        "durable": "on disk before it answers",
        "retries": "retries that outlive the process",
        "log": "delivery log",
        "idempotent": "idempotency",
        "template": "templates",
    }
    return ", ".join(word for name, word in words.items() if not getattr(promises, name)) or "nothing of these"


def rows(records: Sequence[Record]) -> list[list[str]]:
    """A row for each rival, under HEAD."""
    ours = records[0]
    made = []
    for record in records:
        if record.absence:
            made.append([record.rival.name, record.absence, *[""] * (len(HEAD) - 2)])
            continue
        shares = f"{record.median('generator_share'):.0%} / {record.median('sink_share'):.0%}"
        faults = "; ".join(record.faults) or "all, once"
        cells = [spread(record), ratio(ours, record), latencies(record), f"{record.median('memory'):.0f}"]
        made.append([record.rival.name, *cells, f"{record.median('octets'):.0f}", shares, faults])
    return made


HEAD = (
    "",
    "messages/s",
    "Postroom / it",
    "POST p50 / p95 / p99, ms",
    "MiB at rest",
    "octets",
    "generator / sink",
    "copies",
)


def table(variant: Variant, records: Sequence[Record]) -> str:
    """For the terminal."""
    lines = [list(HEAD), *rows(records)]
    full = [list(HEAD), *(row for row, record in zip(lines[1:], records, strict=True) if not record.absence)]
    return "\n".join([variant.title, *aligned(lines, full)])


def aligned(lines: Sequence[Sequence[str]], wide: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, columns as wide as these rows need."""
    widths = [max(map(len, column)) for column in zip(*wide, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]


# --- the page -------------------------------------------------------------------------------------------------------


def write(results: Results, rounds: int, described: str) -> None:
    """Into docs/performance.md, and the pictures beside it. `described`: machine() before the run. Raises SystemExit
    without the marks.
    """
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob("rivals-*.svg"):
        old.unlink()
    section = "\n".join(
        ["", described + ".", "", install.versions() + ".", "", *_parts(results, rounds), _promises(results[0][1]), ""]
    )
    put(section, MARKS)


def put(section: str, marks: tuple[str, str]) -> None:
    """Into the page, between the marks. Raises SystemExit without them."""
    PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), section, marks), encoding="utf-8")


def between(text: str, section: str, marks: tuple[str, str] = MARKS) -> str:
    """`text` with what stands between the marks replaced."""
    start, end = marks
    head, found, rest = text.partition(start)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{PAGE}: the marks are missing: {start.strip()}")
    return head + start + section + end + tail


def _parts(results: Results, rounds: int) -> list[str]:
    lines = []
    for variant, records in results:
        name = variant.file_name
        (PICTURES / name).write_text(_picture(variant, records), encoding="utf-8")
        lines += [f"### {variant.title}", ""]
        lines += [
            f"Medians of {rounds} rounds (least and most in brackets); latencies at {OPEN_LOOP:.0%} of each one's rate.",
            "",
        ]
        lines += [*markdown(HEAD, rows(records)), "", f"![Messages a second: {variant.title}](performance/{name})", ""]
    return lines


def _picture(variant: Variant, records: Sequence[Record]) -> str:
    shown = [record for record in records if record.turns and not record.absence]
    made = [
        Bar(
            record.rival.name,
            record.rate,
            min(t.rate for t in record.turns),
            max(t.rate for t in record.turns),
            index == 0,
        )
        for index, record in enumerate(shown)
    ]
    return bars(f"Messages a second, end to end: {variant.title}", made)


def _promises(records: Sequence[Record]) -> str:
    lines = [[record.rival.name, record.rival.configuration, left_out(record)] for record in records]
    return "\n".join(["### What each does", "", *markdown(("", "how it runs", "what it leaves out"), lines)])


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A table."""
    cells = [list(head), ["---"] * len(head), *lines]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]
