"""Crash images: what a power cut could leave of a SQLite store, and whether each still holds all that was acknowledged.

A child runs the real store over an apsw VFS that notes every write, truncation, deletion and sync. From that record the
parent makes the files as they could be after a cut at any moment: what was synced is there; of what was not, nothing, all,
some of it, or all with the last write torn. Each image is opened by plain SQLite and checked.

`python -m tests.soak.images FOLDER SEED synced|unsynced` is the child.
"""

import asyncio
import os
import pickle
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from service.mail.lifecycle import Event
from service.store import open_store
from service.store.sqlite import store as store_module
from tests.support.checker import Copy, Promise, Records, Verdict, check
from tests.support.clock import SteppedClock
from tests.support.process import ROOT
from tests.support.store_data import accept_of, claim_all, new_message, settlement_of

_SECTOR = 512  # octets: what a disk writes whole
_MESSAGES, _CLIENTS = 48, 6
_CHECKPOINT = 60  # pages of the log: so small that images fall into many checkpoints
_CUTS = ("nothing", "all", "some", "torn")  # what is there of the writes that were not synced

_USUAL = "unix"  # by its name: an empty one would be the default, which the recorder is

Entry = tuple[Any, ...]  # (kind, file, ...), kind: write, truncate, delete, sync; or (acknowledged, kind, id)


# --- the child: record ---------------------------------------------------------------------------------------------------


class _Recorder(apsw.VFS):
    """The usual VFS, and a list of what it was asked to change."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        super().__init__("recorder", _USUAL, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> "_File":
        return _File(name, flags, self.entries)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self.entries.append(("delete", os.path.basename(filename)))


class _File(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], entries: list[Entry]) -> None:
        super().__init__(_USUAL, name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        self._name, self._entries = os.path.basename(path), entries

    def xWrite(self, data: Any, offset: int) -> None:
        super().xWrite(data, offset)
        self._entries.append(("write", self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._entries.append(("truncate", self._name, newsize))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._entries.append(("sync", self._name))


def _often_checkpointed(synced: bool) -> None:
    connect = store_module.connect_writer

    def changed(path: str) -> apsw.Connection:
        connection = connect(path)
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT}").fetchall()
        if not synced:
            connection.execute("PRAGMA synchronous=OFF")
        return connection

    store_module.connect_writer = changed


async def _work(folder: Path, entries: list[Entry], chance: random.Random) -> None:
    """Submissions, claims and results, a few at a time; each acknowledgement stands in the record where it came."""
    store = open_store(f"sqlite:///{folder}/post.db", SteppedClock(), holder="me")
    await store.open()
    numbers = iter(range(1, _MESSAGES + 1))

    async def client() -> None:
        for number in numbers:
            content = (f"Subject: {number}\r\n\r\n".encode(), chance.randbytes(chance.choice((200, 9_000, 40_000))))
            message = new_message(number, content=content, size=sum(map(len, content)))
            await store.accept(accept_of(message, key=f"k{number}"))
            entries.append(("acknowledged", "accepted", message.id))
            for delivery in await claim_all(store, limit=2):
                if chance.random() < 0.8:
                    await store.settle(settlement_of(delivery, Event.ACCEPTED))
                    entries.append(("acknowledged", "sent", delivery.id))

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    await store.close()


async def _make_schema(folder: Path) -> None:
    store = open_store(f"sqlite:///{folder}/post.db", SteppedClock(), holder="first")
    await store.open()
    await store.close()


def _record(folder: Path, seed: int, *, synced: bool) -> None:
    asyncio.run(_make_schema(folder))
    base = (folder / "post.db").read_bytes()
    _often_checkpointed(synced)
    recorder = _Recorder()
    asyncio.run(_work(folder, recorder.entries, random.Random(seed)))
    (folder / "record").write_bytes(pickle.dumps((base, recorder.entries)))


# --- the parent: images --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _DiskFile:
    """A file on the disk: what is surely there, and what was written since its last sync."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Entry] = field(default_factory=list)

    def sync(self) -> None:
        for entry in self.pending:
            _apply(self.durable, entry)
        self.pending.clear()

    def after(self, cut: str, chance: random.Random) -> bytearray:
        """What a cut leaves."""
        content, pending = bytearray(self.durable), self.pending
        if cut == "nothing":
            return content
        if cut == "some":
            pending = [each for each in pending if chance.random() < 0.5]
        for entry in pending[:-1] if cut == "torn" else pending:
            _apply(content, entry)
        if cut == "torn" and pending:
            _apply(content, _torn(pending[-1], chance))
        return content


def _apply(content: bytearray, entry: Entry) -> None:
    if entry[0] == "truncate":
        del content[entry[2] :]
        return
    _, _, offset, data = entry
    content.extend(bytes(max(offset - len(content), 0)))
    content[offset : offset + len(data)] = data


def _torn(entry: Entry, chance: random.Random) -> Entry:
    """A write of which only the first sectors reached the disk."""
    if entry[0] != "write":
        return entry
    kind, name, offset, data = entry
    sectors = len(data) // _SECTOR
    return kind, name, offset, data[: chance.randrange(sectors + 1) * _SECTOR]


@dataclass(slots=True)
class Disk:
    """All files of the store while the record is played."""

    files: dict[str, _DiskFile]
    accepted: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    def play(self, entry: Entry) -> None:
        """One entry of the record."""
        kind, name = entry[:2]
        if kind == "acknowledged":
            (self.accepted if name == "accepted" else self.sent).append(entry[2])
        elif kind == "sync":
            self.files.setdefault(name, _DiskFile()).sync()
        elif kind == "delete":
            self.files.pop(name, None)
        else:
            self.files.setdefault(name, _DiskFile()).pending.append(entry)

    def write(self, folder: Path, cut: str, chance: random.Random) -> None:
        """The files as the cut leaves them. What other processes share in memory is gone."""
        for name in ("post.db", "post.db-wal", "post.db-shm"):
            (folder / name).unlink(missing_ok=True)
        for name in ("post.db", "post.db-wal"):
            if name in self.files:
                (folder / name).write_bytes(self.files[name].after(cut, chance))


def _sampled(entries: list[Entry], count: int, chance: random.Random) -> set[int]:
    """Moments for a cut: around acknowledgements, which promise most, and anywhere."""
    around = [number for number, entry in enumerate(entries) if entry[0] == "acknowledged"]
    chosen = set(chance.sample(around, min(count // 2, len(around))))
    others = [number for number in range(len(entries)) if number not in chosen]
    return chosen | set(chance.sample(others, min(count - len(chosen), len(others))))


def crash_images(folder: Path, seed: int, count: int, *, synced: bool = True) -> Verdict:
    """Record one run and check images of `count` moments, each cut in four ways. `synced=False` is the control."""
    mode = "synced" if synced else "unsynced"
    arguments = [sys.executable, "-m", "tests.soak.images", str(folder), str(seed), mode]
    subprocess.run(arguments, check=True, cwd=ROOT, timeout=120)
    base, entries = pickle.loads((folder / "record").read_bytes())
    chance = random.Random(seed)
    moments = _sampled(entries, count, chance)
    disk = Disk({"post.db": _DiskFile(bytearray(base))})
    verdict, place = Verdict(), folder / "image"
    place.mkdir()
    for number, entry in enumerate(entries):
        disk.play(entry)
        if number in moments:
            for cut, sentence in _broken(disk, place, chance):
                verdict.broken.append(f"after entry {number}, of what was not synced {cut}: {sentence}")
            verdict.figures["images"] += len(_CUTS)
    kinds = Counter(entry[0] for entry in entries)
    verdict.figures.update({"writes": kinds["write"], "syncs": kinds["sync"], "promised": len(disk.accepted)})
    return verdict


def _broken(disk: Disk, place: Path, chance: random.Random) -> Iterator[tuple[str, str]]:
    for cut in _CUTS:
        disk.write(place, cut, chance)
        try:
            sentences = _check_image(disk, f"sqlite:///{place}/post.db")
        except apsw.Error as error:
            sentences = [f"{type(error).__name__}: {error}"]
        yield from ((cut, sentence) for sentence in sentences)


def _check_image(disk: Disk, url: str) -> list[str]:
    numbers = {new_message(number).id: new_message(number) for number in range(1, _MESSAGES + 1)}
    promises = [Promise(id, numbers[id].message_id, ("ada@example.org",), f"k{id}") for id in disk.accepted]
    copies = [Copy(each.message_id, ("ada@example.org",)) for each in _sent(url, numbers)]
    broken = check(Records(url, copies, promises, cut=0), ended=False).broken
    sent = {each.id for each in _sent(url, numbers)}
    if forgotten := [id for id in disk.sent if id not in sent]:
        broken.append(f"a recorded result is gone: {len(forgotten)}")
    return broken


def _sent(url: str, numbers: dict[str, Any]) -> list[Any]:
    reader = apsw.Connection(url.removeprefix("sqlite:///"), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        rows = reader.execute(
            "SELECT m.id FROM messages m JOIN recipients r ON r.rid = m.seq * 1000 WHERE r.state = 'sent'"
        ).fetchall()
    finally:
        reader.close()
    return [numbers[id] for (id,) in rows]


if __name__ == "__main__":
    _record(Path(sys.argv[1]), int(sys.argv[2]), synced=sys.argv[3] == "synced")
