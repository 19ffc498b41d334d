"""Templates by HTTP: looked at, checked, rendered, published, tried; who may, and what is refused."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.mail.template import digest_of
from tests.support.running import running
from tests.support.template_files import STARTERS, starter_files

FILES = {
    "template.toml": 'subject = "Hi {{ name }}"\n[variables]\nname = "string"\n[sample]\nname = "Ada"\n',
    "html.j2": '<html lang="en"><head><title>T</title></head><body><p>{{ name }}</p></body></html>',
    "text.j2": "{{ name }}",
}
TRICKS = ["../x", "/etc/passwd", "a/../../b", "..\\x", "html.j2/../x", "locales/../../x.j2", "_layouts/../../x.j2", "~1", "%2e%2e/x", "C:\\x"]  # fmt: skip


def message(name: str, variables: dict[str, Any], **more: Any) -> dict[str, Any]:
    use = {"name": name, "variables": variables, **({"locale": more.pop("locale")} if "locale" in more else {})}
    return {"from": "a@example.com", "to": "b@example.org", "template": use, **more}


def codes(answer: httpx.Response) -> dict[str, str]:
    return {each["pointer"]: each["code"] for each in answer.json()["errors"]}


async def test_every_starter_template_renders_its_sample_in_both_languages(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        listed = (await client.get("/templates")).json()["data"]
        assert [each["name"] for each in listed] == STARTERS
        for name in STARTERS:
            looked_at = (await client.get(f"/templates/{name}")).json()
            assert (looked_at["name"], looked_at["version"]) == (name, 1)
            for locale in ("en", "zh-CN", "zh-Hant-TW", "fr"):
                made = (await client.post(f"/templates/{name}/render", json={"locale": locale})).json()
                assert made["locale"] == ("zh-CN" if locale.startswith("zh") else "en")
                assert made["subject"]
                assert made["text"]
                assert f'lang="{made["locale"]}"' in made["html"]
            assert (await client.post(f"/templates/{name}/check")).json() == {"ok": True, "findings": []}


async def test_every_fault_of_the_variables_is_told_in_one_answer_and_no_value(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        wrong = {
            "product": 5,
            "cdoe": "canary-1",
            "minutes": "canary-2",
            "code": "canary-code-3 \n",
            "support": "canary-4",
        }
        for path, body, place in (
            ("/send", message("verify-email", wrong), "/template/variables"),
            ("/send?dry_run=true", message("verify-email", wrong), "/template/variables"),
            ("/templates/verify-email/render", {"variables": wrong}, "/variables"),
        ):
            answer = await client.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (422, "template_variables_invalid"), path
            assert codes(answer) == {
                f"#{place}/product": "invalid_variable",
                f"#{place}/cdoe": "unknown_variable",
                f"#{place}/minutes": "invalid_variable",
                f"#{place}/code": "invalid_variable",
                f"#{place}/support": "invalid_variable",
            }
            assert "did you mean code?" in answer.text
            assert "canary" not in answer.text
        missing = await client.post("/send", json=message("verify-email", {}))
        assert set(codes(missing).values()) == {"missing"}
        assert len(codes(missing)) == 3


@pytest.mark.parametrize(
    ("html", "value"),
    [("{{ x|date }}", "canary"), ("{{ {'a': 1}[x] }}", "canary"), ("{{ 5|currency(x) }}", "canary"), ("{{ x|url }}", "javascript:canary"), ("{{ 5 + x }}", "canary")],
)  # fmt: skip
async def test_a_value_that_can_not_be_rendered_is_not_shown(tmp_path: Path, html: str, value: str) -> None:
    async with running(tmp_path) as (client, _):
        files = {"template.toml": "subject = 's'\n[variables]\nx = 'string'", "html.j2": html}
        await client.put("/templates/t", json={"files": files})
        answer = await client.post("/send", json=message("t", {"x": value}))
        assert (answer.status_code, answer.json()["code"]) == (422, "template_render_error")
        assert "canary" not in answer.text


@pytest.mark.parametrize(
    "value", ["a\x00b", "a\x07b", "a\r\nBcc: c@example.org", "a\u2028b", "a\u202eb", "x" * 3000, "😀" * 300]
)
async def test_a_variable_in_the_subject_is_one_line_of_one_field_or_refused(tmp_path: Path, value: str) -> None:
    async with running(tmp_path) as (client, _):
        await client.put("/templates/t", json={"files": FILES})
        answer = await client.post("/send?dry_run=true", json=message("t", {"name": value}))
        assert answer.status_code in (200, 422), answer.text
        if answer.status_code == 200:
            names = [each["name"].lower() for each in answer.json()["headers"]]
            assert names.count("subject") == 1
            assert "bcc" not in names


async def test_publishing_makes_versions_that_stay(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        first = await client.put("/templates/news", json={"files": FILES})
        assert (first.status_code, first.headers["location"], first.json()["version"]) == (201, "/templates/news", 1)
        assert first.json()["ok"] is True
        changed = {**FILES, "text.j2": "new {{ name }}"}
        assert (await client.put("/templates/news", json={"files": changed})).json()["version"] == 2
        assert (await client.put("/templates/news", json={"files": FILES})).json()["version"] == 1
        assert (await client.put("/templates/news", json={"files": changed})).json()["version"] == 2
        versions = (await client.get("/templates/news/versions")).json()["data"]
        assert [each["version"] for each in versions] == [2, 1]
        sent = {}
        for use in ("news", "news@1", f"news@{digest_of(FILES)[:12]}"):
            answer = await client.post("/send", json=message(use, {"name": "Ada"}))
            sent[use] = (await client.get(answer.headers["location"])).json()["template"]
        assert list(sent.values()) == ["news@2", "news@1", "news@1"]
        for asked, count in (("news", 3), ("news@1", 2), ("news@2", 1), ("new", 0), ("news@3", 0)):
            assert len((await client.get("/messages", params={"template": asked})).json()["data"]) == count, asked
        assert (await client.delete("/templates/news")).status_code == 204
        assert (await client.post("/send", json=message("news", {"name": "A"}))).json()["code"] == "template_not_found"
        assert (await client.post("/send", json=message("news@1", {"name": "A"}))).status_code == 202
        assert (await client.get("/templates/news@2")).status_code == 200
        assert (await client.delete("/templates/news")).status_code == 404


async def test_publishing_what_is_published_already_answers_200(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        statuses = [(await client.put("/templates/news", json={"files": FILES})).status_code for _ in range(2)]
        assert statuses == [201, 200]
        changed = await client.put("/templates/news", json={"files": {**FILES, "text.j2": "new"}})
        again = await client.put("/templates/news", json={"files": FILES})
        assert (changed.status_code, again.status_code) == (201, 201)
        await client.delete("/templates/news")
        assert (await client.put("/templates/news", json={"files": FILES})).status_code == 201


def _timeless(answer: dict[str, Any]) -> dict[str, Any]:
    """Without the moment at which a pause was asked for."""
    return {**answer, "troubles": [{**each, "at": None} for each in answer.get("troubles", ())]}


async def test_no_body_is_as_good_as_an_empty_object_where_nothing_is_required(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        for path in ("/templates/welcome/render", "/templates/welcome/check", "/relays/default/pause"):
            empty = await client.post(path)
            assert empty.status_code == 200, (path, empty.text)
            assert _timeless(empty.json()) == _timeless((await client.post(path, json={})).json())
            form = {"Content-Type": "application/x-www-form-urlencoded"}  # curl -X POST -d ''
            assert (await client.post(path, headers=form)).status_code == 200
        assert (await client.post("/templates/welcome/render", content=b"x")).status_code == 415


async def test_a_first_form_is_published_without_files(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        answer = await client.put("/templates/fresh", json={})
        assert (answer.status_code, answer.json()["findings"]) == (201, [])
        assert (await client.post("/templates/fresh/render", json={"locale": "zh"})).json()["subject"] == "林晓，您好"


async def test_files_are_checked_and_not_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, service):
        good = await client.post("/templates/check", json={"files": FILES})
        assert good.json() == {"ok": True, "findings": []}
        starter = await client.post("/templates/check", json={"files": starter_files("order-confirmation")})
        assert starter.json() == {"ok": True, "findings": []}
        bad = {**FILES, "html.j2": '<a href="http://x.example">{{ nmae }}</a><img src="https://x.example/a.png">'}
        found = (await client.post("/templates/check", json={"files": bad})).json()
        assert found["ok"] is False
        assert {each["rule"] for each in found["findings"]} >= {"undefined-variable", "sample-invalid"}
        assert await service.store.template_versions("draft", 10) == []


DOUBLING = """subject = 's'
[variables]
type = "object"
properties.x = { "$ref" = "#/$defs/d0" }
[variables."$defs"]
d22 = { not = {} }
""" + "".join(f'd{n} = {{ anyOf = [{{ "$ref" = "#/$defs/d{n + 1}" }}, {{ "$ref" = "#/$defs/d{n + 1}" }}] }}\n' for n in range(22))  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"template.toml": DOUBLING}, "[variables]: more than 1000 rules would meet one value"),
        ({"template.toml": "subject = 's'\n[sample]\n" + ".".join("a" * 20_000) + " = 1"}, "nested too deeply"),
        ({"template.toml": "subject = 's'\n[sample]\nx = " + "[" * 3000 + "]" * 3000}, "nested too deeply"),
        ({"template.toml": "subject = 's'\n[sample]\nx = " + "9" * 5000}, "more than 400 characters"),
        ({"html.j2": "{{ " + "9" * 5000 + " }}"}, "a number that is too long"),
        ({"html.j2": r"{{ '\ud800' }}"}, "half of a character"),
        ({"html.j2": "<a href='{{ name }}'>x</a>"}, "name: `href` begins with it"),
        ({"html.j2": "<style>b:has(~ i) { top: 0 }</style>" + "<b></b>" * 26_000}, "takes too long to inline"),
    ],
    ids=["doubling", "dots", "arrays", "number", "literal", "surrogate", "link", "css"],
)
async def test_what_would_hold_up_or_end_the_process_is_refused_in_little_time(
    tmp_path: Path, change: dict[str, str], why: str
) -> None:
    async with running(tmp_path) as (client, _):
        for method, path in (("POST", "/templates/check"), ("PUT", "/templates/news")):
            began = time.process_time()
            answer = await client.request(method, path, json={"files": {**FILES, **change}})
            assert (answer.status_code, answer.json()["code"]) == (422, "template_refused"), answer.text
            assert why in answer.json()["errors"][0]["detail"]
            assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("html", "value"),
    [
        ("{{ x|truncate(n) }}", "canary canary"),
        ("{{ x|dictsort }}", "canary"),
        ("{{ x|truncate(5)|dictsort }}", "canary canary"),
        ("<a href='{{ x|url }}'>a</a>", "javascript:canary()"),
    ],
)
async def test_a_value_that_a_filter_can_not_take_is_a_422_and_is_not_shown(
    tmp_path: Path, html: str, value: str
) -> None:
    async with running(tmp_path) as (client, _):
        files = {"template.toml": "subject = 's'\n[variables]\nx = 'string'\nn = 'integer'", "html.j2": html}
        assert (await client.put("/templates/t", json={"files": files})).status_code == 201
        answer = await client.post("/send", json=message("t", {"x": value, "n": 1}))
        assert (answer.status_code, answer.json()["code"]) == (422, "template_render_error")
        assert "canary" not in answer.text


async def test_a_fault_points_to_the_file_in_the_request(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        for method, path in (("POST", "/templates/check"), ("PUT", "/templates/news")):
            for change, pointer, line in (
                ({"html.j2": "\n{{ x|safe }}"}, "#/files/html.j2", 2),
                ({"template.toml": "\n\nx ="}, "#/files/template.toml", 3),
                ({"locales/zh-CN/template.toml": "subject = 's'", "locales/zh-CN/html.j2": "{% if"}, "#/files/locales~1zh-CN~1html.j2", 1),
                ({"html.j2": "{% extends '_layouts/l.j2' %}", "_layouts/l.j2": "\n\n{{"}, "#/files/_layouts~1l.j2", 3),
            ):  # fmt: skip
                answer = await client.request(method, path, json={"files": {**FILES, **change}})
                assert (answer.status_code, answer.json()["code"]) == (422, "template_refused"), answer.text
                (error,) = answer.json()["errors"]
                assert (error["pointer"], error["detail"].partition(":")[0]) == (pointer, f"line {line}")


@pytest.mark.parametrize("trick", [*TRICKS, "html.j2\0", "x" * 5000])
async def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, trick: str) -> None:
    async with running(tmp_path) as (client, _):
        for method, path in (("POST", "/templates/check"), ("PUT", "/templates/news")):
            answer = await client.request(method, path, json={"files": {**FILES, trick: "x"}})
            assert (answer.status_code, answer.json()["code"]) == (422, "template_refused"), answer.text
        assert (await client.get("/templates/news")).status_code == 404


async def test_what_is_not_there_or_has_no_good_name_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        for method, path in (
            ("GET", "/templates/nope"), ("GET", "/templates/nope/versions"), ("GET", "/templates/verify-email@9"),
            ("POST", "/templates/nope/check"), ("POST", "/templates/nope/render"), ("POST", "/templates/nope/send-test"),
            ("DELETE", "/templates/nope"), ("GET", "/templates/..%2fx"),
        ):  # fmt: skip
            answer = await client.request(
                method, path, json={"from": "a@b.c", "to": "a@b.c"} if method == "POST" else None
            )
            assert answer.status_code == 404, (method, path, answer.text)
        for method, path in (
            ("PUT", "/templates/Bad_Name"),
            ("DELETE", "/templates/a@1"),
            ("GET", "/templates/_x/versions"),
        ):
            answer = await client.request(method, path, json={} if method == "PUT" else None)
            assert (answer.status_code, codes(answer)) == (422, {"#/name": "invalid_name"})
        for method in ("PUT", "DELETE"):
            answer = await client.request(method, "/templates/verify-email", json={} if method == "PUT" else None)
            assert (answer.status_code, answer.json()["code"]) == (409, "template_managed_by_files")


async def test_bodies_have_limits(tmp_path: Path) -> None:
    async with running(tmp_path) as (client, _):
        head = {"Content-Type": "application/json"}
        for path, size in (
            ("/templates/check", 5 * 2**20),
            ("/templates/verify-email/render", 2 * 2**20),
            ("/templates/verify-email/send-test", 2 * 2**20),
        ):
            answer = await client.post(path, content=json.dumps({"files": {"html.j2": "x" * size}}), headers=head)
            assert answer.status_code == 413, path
        large = await client.post("/templates/check", json={"files": {**FILES, "text.j2": "x" * 300_000}})
        assert "at most 262144" in large.json()["errors"][0]["detail"]
        assert (
            await client.post("/templates/check", json={"files": {f"f{n}": "" for n in range(300)}})
        ).status_code == 422


async def test_each_operation_needs_its_scope(tmp_path: Path) -> None:
    token = "pr_" + "A" * 43
    (tmp_path / "key").write_text(token)
    async with running(tmp_path, auth="keys", bootstrap_key_file=tmp_path / "key") as (client, _):
        admin = {"Authorization": f"Bearer {token}"}
        keys = {}
        for scope in ("send", "read", "content"):
            made = await client.post("/keys", json={"name": scope, "scopes": [scope]}, headers=admin)
            keys[scope] = {"Authorization": f"Bearer {made.json()['key']}"}
        needed = {
            ("GET", "/templates"): "read", ("GET", "/templates/welcome"): "read", ("GET", "/templates/welcome/versions"): "read",
            ("POST", "/templates/check"): "admin", ("POST", "/templates/welcome/check"): "read", ("POST", "/templates/welcome/render"): "read",
            ("POST", "/templates/welcome/send-test"): "send", ("POST", "/templates/reload"): "admin",
            ("PUT", "/templates/x"): "admin", ("DELETE", "/templates/x"): "admin",
        }  # fmt: skip
        for (method, path), scope in needed.items():
            assert (await client.request(method, path)).status_code == 401, path
            for held, headers in keys.items():
                status = (await client.request(method, path, headers=headers, json={})).status_code
                assert (status == 403) == (held != scope), (method, path, held, status)
