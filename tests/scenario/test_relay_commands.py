"""`postroom relay`: what is configured, what is known of providers, and a check with its exit status; never a secret."""

import asyncio
import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Done, run
from tests.support.running import running
from tests.support.sink import Sink
from tests.support.tls import TestAuthority

FILE = """
[relays.second]
url = "smtps://u:HIDDEN@h.example"
from = ["a.example", "b@b.example"]
priority = 2
[relays.first]
url = "smtps://me%40163.com:HIDDEN@smtp.163.com"
"""


def postroom(folder: Path, *arguments: str, **variables: str) -> Done:
    return run(list(arguments), folder, {"PATH": "/usr/bin:/bin", **variables})


def configured(folder: Path, text: str = FILE) -> dict[str, str]:
    (folder / "relays.toml").write_text(text)
    return {"POSTROOM_RELAYS_FILE": str(folder / "relays.toml")}


def test_list_shows_all_relays_best_first_and_no_secret(tmp_path: Path) -> None:
    done = postroom(tmp_path, "relay", "list", **configured(tmp_path))
    assert done.status == 0, done.err
    assert done.out.splitlines() == [
        "NAME    ENDPOINT          TLS       PRESET  USER        PRIORITY  FROM",
        "first   smtp.163.com:465  implicit  163     me@163.com  1         me@163.com",
        "second  h.example:465     implicit  -       u           2         a.example b@b.example",
    ]


def test_list_without_a_relay_says_what_to_set(tmp_path: Path) -> None:
    done = postroom(tmp_path, "relay", "list")
    assert (done.status, done.out) == (1, "")
    assert "set POSTROOM_RELAY_URL or POSTROOM_RELAYS_FILE" in done.err


@pytest.mark.parametrize("name", ["163", "second"])
def test_show_writes_toml_for_a_relays_file(name: str, tmp_path: Path) -> None:
    done = postroom(tmp_path, "relay", "show", name, **configured(tmp_path))
    assert done.status == 0, done.err
    assert list(tomllib.loads(done.out)["relays"]) == [name]
    assert "HIDDEN" not in done.out
    shown = postroom(tmp_path, "relay", "list", **configured(tmp_path, done.out.replace("secret_file", "#")))
    assert f"\n{name} " in shown.out, shown.err


def test_show_names_what_was_perhaps_meant(tmp_path: Path) -> None:
    done = postroom(tmp_path, "relay", "show", "gmal")
    assert (done.status, done.err) == (1, "postroom: There is no relay or preset 'gmal'; did you mean gmail?\n")


def test_presets_lists_every_provider(tmp_path: Path) -> None:
    done = postroom(tmp_path, "relay", "presets")
    assert done.status == 0
    rows = {line.split()[0]: line for line in done.out.splitlines()}
    assert {"163", "qq", "gmail", "office365", "ses"} < set(rows)
    assert rows["163"].split()[1:] == ["smtp.163.com", "465", "994", "25", "587", "PLAIN", "LOGIN", "the", "login"]


async def test_check_ends_with_1_when_a_relay_does_not_work(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    sink = await Sink().start(implicit=authority.server_context())
    text = "".join(
        f'[relays.{name}]\nurl = "smtps://zouchengzhuo%40163.com:{secret}@localhost:{sink.port}"\nca_file = "{authority.ca_file}"\n'
        f'account = "{name}"\n'
        for name, secret in (("good", "AUTHCODE"), ("bad", "HIDDEN"))
    )
    variables = configured(tmp_path, text)

    async def check(*arguments: str) -> Done:
        return await asyncio.to_thread(postroom, tmp_path, "relay", "check", *arguments, **variables)

    good = await check("good")
    assert good.status == 0, good.err
    assert [line.split()[:2] for line in good.out.splitlines()[1:] if not line.startswith("       ")] == [
        ["ok", "dns"], ["ok", "tcp"], ["WARN", "tls"], ["ok", "greeting"], ["ok", "ehlo"], ["ok", "auth"], ["ok", "sender"], ["ok", "quit"]
    ]  # fmt: skip
    given = await check("good", "--from", "shop@b.example")
    assert "shop@b.example: 250" in given.out
    both = await check("--json")
    assert both.status == 1
    told = json.loads(both.out)
    assert (told["ok"], [(each["name"], each["ok"]) for each in told["relays"]]) == (
        False,
        [("good", True), ("bad", False)],
    )
    steps = {step["name"]: step for step in told["relays"][1]["steps"]}
    assert (steps["auth"]["state"], steps["sender"]["state"]) == ("failed", "not_run")
    assert steps["sender"]["milliseconds"] is None
    assert "授权码" in steps["auth"]["hint"]
    assert "HIDDEN" not in both.out + both.err
    assert sink.received == []
    assert [good for _, good in sink.logins] == [True, True, True, False], "one login for each check"
    unknown = await check("goood")
    assert (unknown.status, unknown.err) == (1, "postroom: There is no relay 'goood'; did you mean good?\n")
    await sink.stop()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("check", "nosuch"), "There is no relay 'nosuch'; there are first, second"),
        (("check", "frst"), "There is no relay 'frst'; did you mean first?"),
        (("check", "first_one"), "There is no relay 'first_one'; did you mean first?"),
        (("show", "sekond"), "There is no relay or preset 'sekond'; did you mean second?"),
        (("show", "nosuch"), "There is no relay or preset 'nosuch'; there are second, first, 163, "),
    ],
)
def test_an_unknown_name_is_answered_with_what_was_meant_or_with_all_there_are(
    command: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    done = postroom(tmp_path, "relay", *command, **configured(tmp_path))
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"postroom: {words}"), done.err


def test_an_address_that_is_none_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    done = postroom(tmp_path, "relay", "check", "--from", "no address", **configured(tmp_path))
    assert done.status == 2
    assert "--from" in done.err


async def checks(folder: Path, sink: Sink, arguments: list[list[str]], **variables: str) -> list[tuple[Done, Any]]:
    """The commands one after the other, and what each told of the login."""
    text = f'[relays.one]\nurl = "smtp://zouchengzhuo%40163.com:HIDDEN@127.0.0.1:{sink.port}?plaintext=allow"\n'
    done: list[tuple[Done, Any]] = []
    for each in arguments:
        ran = await asyncio.to_thread(
            postroom, folder, "relay", "check", "--json", *each, **configured(folder, text), **variables
        )
        steps = json.loads(ran.out)["relays"][0]["steps"]
        done.append((ran, next(step for step in steps if step["name"] == "auth")))
    return done


async def test_checks_by_hand_and_a_service_on_one_store_know_of_each_others_refused_logins(tmp_path: Path) -> None:
    sink = await Sink().start()
    (tmp_path / "var").mkdir()
    url = f"sqlite:///{tmp_path}/var/post.db"
    variables = {"POSTROOM_DATABASE_URL": url}
    relay_url = f"smtp://zouchengzhuo%40163.com:HIDDEN@127.0.0.1:{sink.port}?plaintext=allow"
    async with running(tmp_path, capture=False, database_url=url, relay_url=relay_url) as (client, _):
        (_, first), (_, second), (_, forced) = await checks(tmp_path, sink, [[], [], ["--force"]], **variables)
        assert (first["state"], second["state"], forced["state"]) == ("failed", "not_run", "not_run")
        assert "one may be tried at" in second["detail"]
        assert "one may be forced at" in forced["detail"]
        answer = (await client.post("/relays/default/check")).json()
        assert [step["state"] for step in answer["steps"] if step["name"] == "auth"] == ["not_run"]
    assert len(sink.logins) == 1
    variables["POSTROOM_CHECK_FORCE_INTERVAL"] = "0"
    ((_, forced),) = await checks(tmp_path, sink, [["--force"]], **variables)
    assert forced["state"] == "failed"
    assert len(sink.logins) == 2
    await sink.stop()


async def test_a_check_makes_no_store_and_goes_on_without_one_that_cannot_be_opened(tmp_path: Path) -> None:
    sink = await Sink().start()
    file = tmp_path / "post.db"
    variables = {"POSTROOM_DATABASE_URL": f"sqlite:///{file}"}
    ((ran, step),) = await checks(tmp_path, sink, [[]], **variables)
    assert (ran.status, ran.err, step["state"]) == (1, "", "failed")
    assert "post.db" not in os.listdir(tmp_path)
    await asyncio.to_thread(file.write_bytes, b"no database" * 1000)
    ((ran, step),) = await checks(tmp_path, sink, [[]], **variables)
    assert ran.err.startswith("postroom: the store is not asked who may log in: ")
    assert step["state"] == "failed"
    await sink.stop()
