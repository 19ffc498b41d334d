"""A backup is taken under load, and what a restored copy would send is seen, canceled or released by its owner."""

import json
import os
from pathlib import Path

import apsw
import httpx
import pytest

from service.clock import SYSTEM
from service.errors import ConfigurationError
from service.store.sqlite.backup import back_up
from tests.scenario.test_crash import Load
from tests.support import commands
from tests.support.commands import Done
from tests.support.process import ServiceProcess, every_message
from tests.support.running import ARTICLE
from tests.support.sink_process import SinkProcess
from tests.support.waiting import wait_for


def postroom(folder: Path, database: str, *arguments: str) -> Done:
    """A command on a store in `folder`."""
    environment = {"PATH": os.environ["PATH"], "POSTROOM_DATABASE_URL": f"sqlite:///{folder}/{database}"}
    return commands.run(list(arguments), folder, environment)


def test_a_copy_under_load_holds_every_message_accepted_before_it_and_no_half_of_one(tmp_path: Path) -> None:
    with SinkProcess(tmp_path) as sink, ServiceProcess(tmp_path, sink.url) as service:
        loads = [Load(service.url) for _ in range(3)]
        for load in loads:
            load.start()
        assert wait_for(lambda: all(len(load.accepted) > 30 for load in loads), 30)
        before = {each for load in loads for each in load.accepted}
        done = postroom(tmp_path, "post.db", "backup", "copy.db")
        assert done.status == 0, done
        meanwhile = [len(load.accepted) for load in loads]
        assert wait_for(lambda: all(len(a.accepted) > n for a, n in zip(loads, meanwhile, strict=True)), 30), (
            "it goes on"
        )
        for load in loads:
            load.stop()
    assert "copied in" in done.out
    copy = apsw.Connection(str(tmp_path / "copy.db"), flags=apsw.SQLITE_OPEN_READWRITE)
    assert copy.execute("PRAGMA integrity_check").get == "ok"
    assert before <= {each for (each,) in copy.execute("SELECT message_id FROM messages")}
    assert copy.execute("SELECT count(*) FROM messages m LEFT JOIN contents c ON c.message = m.seq"
                        " WHERE c.message IS NULL").get == 0  # fmt: skip
    counted = dict(copy.execute("SELECT state, count(*) FROM recipients GROUP BY state"))
    assert counted == dict(copy.execute("SELECT state, count FROM counters WHERE count > 0")), (
        "one moment for all tables"
    )
    copy.close()


def test_writers_that_commit_between_its_steps_do_not_begin_a_copy_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is written after every step; a copy that began again each time would never end."""
    path = str(tmp_path / "post.db")
    with ServiceProcess(tmp_path, "smtp://127.0.0.1:9?plaintext=allow", hold="true") as service:
        for _ in range(20):
            assert httpx.post(f"{service.url}/send", json=ARTICLE).status_code == 202
    monkeypatch.setattr("service.store.sqlite.backup._STEP", 4096)
    monkeypatch.setattr("service.store.sqlite.backup._SHOW_EVERY", 0.0)
    writer = apsw.Connection(path)
    said: list[str] = []

    def say(words: str) -> None:
        said.append(words)
        writer.execute("UPDATE heartbeat SET at = at + 1")
        assert len(said) < 1000, "it began again"

    back_up(path, tmp_path / "copy.db", SYSTEM, say)
    writer.close()
    assert len(said) > 20
    copy = apsw.Connection(str(tmp_path / "copy.db"))
    assert copy.execute("SELECT count(*) FROM messages").get == 20
    copy.close()


def test_nothing_is_overwritten_and_what_is_no_store_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_text("precious")
    (tmp_path / "empty.db").touch()
    for database, file, sentence in (
        ("none.db", "new.db", "POSTROOM_DATABASE_URL: there is no file"),
        ("empty.db", "new.db", "is no store"),
        ("empty.db", "copy.db", "is there already, and nothing is overwritten"),
        ("empty.db", "no/folder.db", "FILE: there is no folder"),
    ):
        done = postroom(tmp_path, database, "backup", file)
        assert (done.status, sentence in done.err) == (1, True), done
    assert (tmp_path / "copy.db").read_text() == "precious"
    assert not list(tmp_path.glob("*.partial*"))


def test_a_file_that_appears_while_the_copy_is_made_is_not_replaced(tmp_path: Path) -> None:
    assert postroom(tmp_path, "post.db", "migrate").status == 0

    def say(_: str) -> None:
        (tmp_path / "copy.db").write_text("precious")

    with pytest.raises(ConfigurationError, match="nothing is overwritten"):
        back_up(str(tmp_path / "post.db"), tmp_path / "copy.db", SYSTEM, say)
    assert (tmp_path / "copy.db").read_text() == "precious"
    assert not list(tmp_path.glob("*.partial*"))


def test_postgresql_is_left_to_its_own_tools(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "POSTROOM_DATABASE_URL": "postgresql://u:canary@db/postroom"}
    done = commands.run(["backup", "copy.db"], tmp_path, environment)
    assert done.status == 1
    assert "pg_dump" in done.err
    assert "canary" not in done.err


def restored(folder: Path) -> tuple[list[str], list[str]]:
    """A copy with two messages that wait, one that is scheduled; then the original sends. Ids: waiting, scheduled."""
    with ServiceProcess(folder, "smtp://127.0.0.1:9?plaintext=allow", hold="true") as service:
        ids = []
        for to, at in (("a@example.org", None), ("b@example.org", None), ("later@example.org", "2099")):
            body = {**ARTICLE, "to": to}
            if at is not None:
                body["scheduled_at"] = _tomorrow()
            answer = httpx.post(f"{service.url}/send", json=body)
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])
    done = postroom(folder, "post.db", "backup", "copy.db")
    assert done.status == 0, done
    return ids[:2], ids[2:]


def _tomorrow() -> str:
    from service.clock import rfc3339

    return rfc3339(SYSTEM.now() + 86_400_000)


def test_a_restored_copy_sends_nothing_and_lists_what_was_perhaps_sent_until_it_is_released(tmp_path: Path) -> None:
    waiting, scheduled = restored(tmp_path)
    with SinkProcess(tmp_path) as sink:
        given = {"database_url": f"sqlite:///{tmp_path}/copy.db"}
        with ServiceProcess(tmp_path, sink.url, **given) as service, httpx.Client(base_url=service.url) as client:
            assert client.get("/readyz").json()["sending"] == "held", "without --hold too"
            assert client.post("/send", json=ARTICLE, headers={"Prefer": "wait=1"}).status_code == 202
            assert sink.copies() == {}
            shown = postroom(tmp_path, "copy.db", "queue")
            found = json.loads(postroom(tmp_path, "copy.db", "queue", "--json", "--first", "2").out)
            assert postroom(tmp_path, "copy.db", "queue", "release").status == 0
        assert sink.copies() == {}, "released for the next start"
        with ServiceProcess(tmp_path, sink.url, **given) as service, httpx.Client(base_url=service.url) as client:
            assert client.get("/readyz").json()["sending"] == "on"
            assert wait_for(lambda: len(sink.copies()) == 3, 20), "the two, and the new one"
    lines = shown.out.splitlines()
    assert lines[0].startswith("This store is a copy taken at ")
    assert lines[1] == "Perhaps sent by the original since: 2 of 4 waiting recipients (marked ?)."
    marked = {line.split()[1] for line in lines if line.startswith("?")}
    assert marked == set(waiting)
    assert scheduled[0] in shown.out
    assert len(found["first"]) == 2
    assert sum(lane["perhaps_sent"] for lane in found["lanes"]) == 2


def test_what_a_restored_copy_holds_is_canceled_and_newer_mail_is_not(tmp_path: Path) -> None:
    waiting, scheduled = restored(tmp_path)
    with SinkProcess(tmp_path) as sink:
        given = {"database_url": f"sqlite:///{tmp_path}/copy.db"}
        with ServiceProcess(tmp_path, sink.url, **given) as service:
            new = httpx.post(f"{service.url}/send", json=ARTICLE).json()["id"]
            done = postroom(tmp_path, "copy.db", "queue", "cancel")
            assert "3 messages canceled" in done.out, done
            assert postroom(tmp_path, "copy.db", "queue", "release").status == 0
        with ServiceProcess(tmp_path, sink.url, **given) as service, httpx.Client(base_url=service.url) as client:
            assert wait_for(lambda: len(sink.copies()) == 1, 20)
            assert wait_for(lambda: client.get(f"/messages/{new}").json()["status"] == "sent", 20)
            states = {message["id"]: message["status"] for message in every_message(client)}
    assert states == {**dict.fromkeys([*waiting, *scheduled], "canceled"), new: "sent"}


def test_cancel_asks_up_to_when_on_a_store_that_is_no_copy(tmp_path: Path) -> None:
    assert postroom(tmp_path, "post.db", "migrate").status == 0
    done = postroom(tmp_path, "post.db", "queue", "cancel")
    assert (done.status, "--until" in done.err) == (1, True)
    wrong = postroom(tmp_path, "post.db", "queue", "cancel", "--until", "yesterday")
    assert (wrong.status, "must be a time with an offset" in wrong.err) == (2, True)
    assert postroom(tmp_path, "post.db", "queue", "release").out == "This store is no copy that was held.\n"
    assert postroom(tmp_path, "post.db", "queue").out == "0 recipients wait.\n"
