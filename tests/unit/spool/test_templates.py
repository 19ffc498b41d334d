"""The library: which form a name means, what a reload keeps, how a folder is read."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import (
    ConfigurationError,
    PayloadTooLarge,
    TemplateManagedByFiles,
    TemplateNotFound,
    TemplateRefused,
)
from service.mail.render import Template, load_template
from service.mail.template import digest_of, parse_files
from service.spool.folder import Folder
from service.spool.templates import TemplateLibrary
from service.store import open_store
from service.store.port import Store
from tests.support.clock import SteppedClock
from tests.support.template_files import render, write

GOOD = {"template.toml": 'subject = "s"', "html.j2": "one"}
LAYOUT = {"template.toml": 'subject = "s"', "html.j2": '{% extends "_layouts/l.j2" %}{% block b %}x{% endblock %}'}


async def opened(tmp_path: Path, clock: SteppedClock, holder: str = "me") -> Store:
    store = open_store(f"sqlite:///{tmp_path}/post.db", clock, holder=holder)
    await store.open()
    return store


def put(tmp_path: Path, name: str = "a", **change: str) -> None:
    write(tmp_path / "t", name, {**GOOD, **{path.replace("__", "."): text for path, text in change.items()}})


def words(library: TemplateLibrary, name: str = "a") -> str:
    return render(library.in_folder()[name], {}).html


def alone(tmp_path: Path, clock: SteppedClock, *, watch: bool = False) -> TemplateLibrary:
    return TemplateLibrary.load(tmp_path / "t", None, clock, watch=watch)


def test_a_bad_template_at_the_start_is_named_with_file_and_line(tmp_path: Path, clock: SteppedClock) -> None:
    put(tmp_path, "good")
    put(tmp_path, "bad", html__j2="\n{{ x")
    put(tmp_path, "worse", template__toml="subject")
    with pytest.raises(
        ConfigurationError, match=r"POSTROOM_TEMPLATES_DIR: .*bad/html\.j2:2: .*; worse/template\.toml:1: "
    ):
        alone(tmp_path, clock)


async def test_a_bad_template_is_refused_while_its_old_form_stays_and_others_change(
    tmp_path: Path, clock: SteppedClock
) -> None:
    put(tmp_path)
    put(tmp_path, "b")
    library = alone(tmp_path, clock)
    put(tmp_path, html__j2="\n\n{{ x|safe }}")
    put(tmp_path, "b", html__j2="two")
    put(tmp_path, "c", html__j2="{% if")
    found = await library.reload()
    assert [(each.file, each.line) for each in found.faults] == [("a/html.j2", 3), ("c/html.j2", 1)]
    assert (words(library), words(library, "b"), sorted(library.in_folder())) == ("one", "two", ["a", "b"])
    put(tmp_path, html__j2="three")
    await library.reload()
    assert words(library) == "three"


async def test_a_broken_layout_is_one_fault_and_every_template_stays(tmp_path: Path, clock: SteppedClock) -> None:
    write(tmp_path / "t", "_layouts", {"l.j2": "<{% block b %}{% endblock %}>"})
    for name in ("a", "b"):
        write(tmp_path / "t", name, LAYOUT)
    library = alone(tmp_path, clock)
    write(tmp_path / "t", "_layouts", {"l.j2": "\n{% block b %}"})
    found = await library.reload()
    assert [str(each).partition(": ")[0] for each in found.faults] == ["_layouts/l.j2:2"]
    assert (words(library), words(library, "b")) == ("<x>", "<x>")
    write(tmp_path / "t", "_layouts", {"l.j2": "[{% block b %}{% endblock %}]"})
    assert (await library.reload()).faults == []
    assert (words(library), words(library, "b")) == ("[x]", "[x]")


async def test_files_that_can_not_be_read_are_faults_too(tmp_path: Path, clock: SteppedClock) -> None:
    write(tmp_path / "t", "_layouts", {"l.j2": "<{% block b %}{% endblock %}>"})
    write(tmp_path / "t", "a", LAYOUT)
    library = alone(tmp_path, clock)
    (tmp_path / "t/_layouts/l.j2").write_bytes(b"\xff")
    assert [each.file for each in (await library.reload()).faults] == ["_layouts/l.j2"]
    (tmp_path / "t").rename(tmp_path / "elsewhere")
    assert ["can't be read" in each.why for each in (await library.reload()).faults] == [True]
    assert words(library) == "<x>"


async def test_what_is_taken_out_of_the_folder_is_gone_at_the_next_reload(tmp_path: Path, clock: SteppedClock) -> None:
    put(tmp_path)
    put(tmp_path, "b")
    library = alone(tmp_path, clock)
    for path in (tmp_path / "t/b").iterdir():
        path.unlink()
    (tmp_path / "t/b").rmdir()
    await library.reload()
    assert sorted(library.in_folder()) == ["a"]
    with pytest.raises(TemplateNotFound):
        await library.get("b")


def test_what_did_not_change_is_not_compiled_again(tmp_path: Path) -> None:
    put(tmp_path)
    put(tmp_path, "b")
    folder = Folder(tmp_path / "t")
    folder.read()
    before = dict(folder.templates)
    put(tmp_path, "b", html__j2="two")
    assert folder.changed()
    folder.read()
    assert folder.templates["a"] is before["a"]
    assert folder.templates["b"] is not before["b"]
    assert not folder.changed()


async def test_watching_looks_before_each_use_and_not_watching_does_not(tmp_path: Path, clock: SteppedClock) -> None:
    put(tmp_path)
    watching, still = alone(tmp_path, clock, watch=True), alone(tmp_path, clock)
    put(tmp_path, html__j2="changed")
    assert render((await watching.get("a")).template, {}).html == "changed"
    assert render((await still.get("a")).template, {}).html == "one"
    put(tmp_path, html__j2="{{ broken")
    assert render((await watching.get("a")).template, {}).html == "changed"
    put(tmp_path, "new")
    assert (await watching.get("new")).template.name == "new"


async def test_names_with_versions_and_digests(tmp_path: Path, clock: SteppedClock) -> None:
    store = await opened(tmp_path, clock)
    put(tmp_path)
    library = TemplateLibrary.load(tmp_path / "t", store, clock)
    await library.number()
    first = (await library.get("a")).template.digest
    put(tmp_path, html__j2="two")
    await library.reload()
    assert (await library.get("a")).label == "a@2"
    for use, label, html in (
        ("a@1", "a@1", "one"),
        ("a@2", "a@2", "two"),
        (f"a@{first[:8]}", "a@1", "one"),
        (f"a@{first}", "a@1", "one"),
    ):
        found = await library.get(use)
        assert (found.label, render(found.template, {}).html) == (label, html)
    for use in (
        "a@3",
        "a@0",
        "a@",
        f"a@{first[:7]}",
        "a@None",
        "a@x",
        "a@-1",
        "a@ 1",
        "b@1",
        "nope",
        "../a",
        "a/b",
        "@1",
        "a@1@1",
        "a@" + "9" * 50,
    ):
        with pytest.raises(TemplateNotFound):
            await library.get(use)
    put(tmp_path)
    await library.reload()
    assert (await library.get("a")).label == "a@1", "the same files are the same version"
    await store.close()


async def test_a_digest_that_begins_with_digits_only_is_found_too(tmp_path: Path, clock: SteppedClock) -> None:
    number = next(n for n in range(10_000) if digest_of({**GOOD, "html.j2": str(n)})[:8].isdigit())
    store = await opened(tmp_path, clock)
    put(tmp_path, html__j2=str(number))
    library = TemplateLibrary.load(tmp_path / "t", store, clock)
    await library.number()
    digest = (await library.get("a")).template.digest
    put(tmp_path)
    await library.reload()
    assert (await library.get(f"a@{digest[:8]}")).label == "a@1"
    await store.close()


async def test_a_name_that_is_nearly_right_is_suggested(tmp_path: Path, clock: SteppedClock) -> None:
    put(tmp_path, "welcome")
    with pytest.raises(TemplateNotFound) as caught:
        await alone(tmp_path, clock).get("welcom")
    assert "did you mean welcome?" in caught.value.errors[0].detail


async def test_two_processes_agree_on_numbers_and_on_what_is_published(tmp_path: Path, clock: SteppedClock) -> None:
    put(tmp_path)
    stores = [await opened(tmp_path, clock, holder) for holder in ("one", "two")]
    one, two = [TemplateLibrary.load(tmp_path / "t", store, clock) for store in stores]
    for library in (one, two):
        await library.number()
    with pytest.raises(TemplateNotFound):
        await two.get("news")
    assert (await one.publish("news", GOOD)).label == "news@1"
    with pytest.raises(TemplateNotFound):
        await two.get("news")  # believed for a while
    clock.step(3)
    assert (await two.get("news")).label == "news@1"
    await two.publish("news", {**GOOD, "html.j2": "two"})
    assert (await two.get("news")).label == "news@2"
    clock.step(3)
    assert (await one.get("news")).label == "news@2"
    assert render((await one.get("news@1")).template, {}).html == "one"
    assert [(each.source.name, each.number) for each in await one.all()] == [("a", 1), ("news", 2)]
    await one.retire("news")
    with pytest.raises(TemplateNotFound):
        await one.get("news")
    assert (await one.get("news@2")).label == "news@2"
    with pytest.raises(TemplateNotFound):
        await one.retire("news")
    for store in stores:
        await store.close()


async def test_a_name_of_the_folder_can_not_be_published_or_taken_away(tmp_path: Path, clock: SteppedClock) -> None:
    put(tmp_path)
    store = await opened(tmp_path, clock)
    library = TemplateLibrary.load(tmp_path / "t", store, clock)
    with pytest.raises(TemplateManagedByFiles):
        await library.publish("a", GOOD)
    with pytest.raises(TemplateManagedByFiles):
        await library.retire("a")
    await store.close()


async def test_a_version_that_the_rules_refuse_by_now_is_listed_and_says_why_it_is_refused(
    tmp_path: Path, clock: SteppedClock
) -> None:
    put(tmp_path)
    store = await opened(tmp_path, clock)
    await store.publish_template(
        "old", "d" * 64, '{"template.toml": "subject = \'s\'", "html.j2": "{{ x|urlize }}"}', 1, current=True
    )
    library = TemplateLibrary.load(tmp_path / "t", store, clock)
    await library.number()
    await store.publish_template("older", "e" * 64, '{"template.toml": "subjcet = 5"}', 1, current=True)
    assert [(each.source.name, each.number) for each in await library.all()] == [("a", 1), ("old", 1)]
    with pytest.raises(TemplateRefused):
        await library.get("old")
    await store.close()


async def test_layouts_of_the_folder_may_be_extended_and_become_part_of_the_version(
    tmp_path: Path, clock: SteppedClock
) -> None:
    write(tmp_path / "t", "_layouts", {"l.j2": "<{% block b %}{% endblock %}>", "unused.j2": "u"})
    store = await opened(tmp_path, clock)
    library = TemplateLibrary.load(tmp_path / "t", store, clock)
    await library.publish("news", LAYOUT)
    write(tmp_path / "t", "_layouts", {"l.j2": "changed"})
    clock.step(3)
    loaded = await library.get("news")
    assert render(loaded.template, {}).html == "<x>"
    assert set(loaded.template.source.files) == {*LAYOUT, "_layouts/l.j2"}
    assert parse_files("news", loaded.template.source.files).digest == loaded.template.digest
    await store.close()


def test_sample_attachments_are_read_from_the_folder_and_what_is_missing_is_left_out(
    tmp_path: Path, clock: SteppedClock
) -> None:
    put(tmp_path, template__toml='subject = "s"\nsample_attachments = ["a.pdf", "gone.pdf"]')
    (tmp_path / "t/a/a.pdf").write_bytes(b"%PDF")
    library = alone(tmp_path, clock)
    (one,) = library.sample_attachments(library.in_folder()["a"], 4)
    assert (one.filename, one.content) == ("a.pdf", b"%PDF")


def test_sample_attachments_that_no_message_may_hold_are_not_read(
    tmp_path: Path, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, template__toml='subject = "s"\nsample_attachments = ["a.pdf", "b.pdf"]')
    for name in ("a.pdf", "b.pdf"):
        (tmp_path / "t/a" / name).write_bytes(b"%PDF")
    library = alone(tmp_path, clock)
    template = library.in_folder()["a"]
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(PayloadTooLarge, match="8 octets; at most 7"):
        library.sample_attachments(template, 7)


async def test_a_name_that_no_template_can_have_is_a_fault_and_not_passed_over(
    tmp_path: Path, clock: SteppedClock
) -> None:
    put(tmp_path)
    for name in (".git", "_layouts", "_drafts"):
        (tmp_path / "t" / name).mkdir()
    library = alone(tmp_path, clock)
    put(tmp_path, "Order_Confirm")
    (fault,) = (await library.reload()).faults
    assert str(fault).startswith("Order_Confirm:1: a template's name is lower-case letters, digits and hyphens")
    with pytest.raises(ConfigurationError, match=r"Order_Confirm:1: "):
        alone(tmp_path, clock)


async def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path, clock: SteppedClock) -> None:
    write(tmp_path / "t", "_layouts", {"l.j2": "\ufeff<p>{% block b %}{% endblock %}</p>"})
    write(tmp_path / "t", "a", {path: "\ufeff" + text for path, text in LAYOUT.items()})
    library = alone(tmp_path, clock)
    assert words(library) == "<p>x</p>"
    before = library.in_folder()["a"]
    await library.reload()
    assert library.in_folder()["a"] is before, "the same files are not compiled again"
    marked = await library.compile("draft", {path: "\ufeff" + text for path, text in GOOD.items()})
    assert marked.digest == (await library.compile("draft", GOOD)).digest


@pytest.mark.parametrize(
    "change",
    [
        {"html__j2": "{{ " + "9" * 5000 + " }}"},
        {"template__toml": "subject = 's'\n[sample]\nx = " + "9" * 5000},
        {"template__toml": "subject = 's'\n[sample]\n" + ".".join("a" * 20_000) + " = 1"},
        {"html__j2": r"{{ '\ud800' }}"},
    ],
)
async def test_one_bad_file_stops_neither_a_reload_nor_the_others(
    tmp_path: Path, clock: SteppedClock, change: dict[str, str]
) -> None:
    put(tmp_path)
    library = alone(tmp_path, clock)
    put(tmp_path, html__j2="two")
    put(tmp_path, "bad", **change)
    assert [each.file.partition("/")[0] for each in (await library.reload()).faults] == ["bad"]
    assert words(library) == "two"


class Watched:
    """A store that counts what is asked of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: Counter[tuple[str, Any]] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.asked[name, arguments[0] if arguments else None] += 1
            return method(*arguments, **named)

        return counted


@pytest.fixture
async def watched(tmp_path: Path, clock: SteppedClock) -> AsyncIterator[Watched]:
    store = await opened(tmp_path, clock)
    yield Watched(store)
    await store.close()


def over(watched: Watched, tmp_path: Path, clock: SteppedClock, kept: int = 1000) -> TemplateLibrary:
    (tmp_path / "t").mkdir(exist_ok=True)
    return TemplateLibrary.load(tmp_path / "t", watched, clock, kept=kept)  # type: ignore[arg-type]


async def test_neither_a_wrong_name_nor_a_list_compiles_what_is_published(
    watched: Watched, tmp_path: Path, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = over(watched, tmp_path, clock)
    for n in range(100):
        await publisher.publish(f"news-{n}", {**GOOD, "html.j2": f"<p>{n}</p>"})
    compiled: list[str] = []

    def compile_and_tell(name: str, files: dict[str, str]) -> Template:
        compiled.append(name)
        return load_template(name, files)

    monkeypatch.setattr("service.spool.templates.load_template", compile_and_tell)
    library = over(watched, tmp_path, clock)
    for name in ("news-7x", "news-7y", "News-7", "NEWS_7", "nothing", "x" * 5000, ""):
        with pytest.raises(TemplateNotFound) as caught:
            await library.get(name)
        assert ("did you mean news-7?" in caught.value.errors[0].detail) is ("7" in name), name
    listed = await library.all()
    assert len(listed) == 100
    assert await library.all() == listed
    assert compiled == []
    assert watched.asked["template_files", "news-7"] == 1, "what a list shows is kept"
    assert watched.asked["published_templates", None] == 3, "names are believed for a while"
    assert (await library.get("news-7")).label == "news-7@1"
    assert compiled == ["news-7"]


async def test_the_nearest_of_very_many_names_is_looked_for_among_few(
    watched: Watched, tmp_path: Path, clock: SteppedClock
) -> None:
    library = over(watched, tmp_path, clock)
    store: Any = watched
    for n in range(1200):
        await store.publish_template(f"{'abcd'[n % 4]}-long-name-of-a-template-{n}", f"{n:064d}", "{}", 1, current=True)
    await store.publish_template("welcome", "f" * 64, "{}", 1, current=True)
    began = time.process_time()
    with pytest.raises(TemplateNotFound) as caught:
        await library.get("welcmoe")
    assert "did you mean welcome?" in caught.value.errors[0].detail
    for n in range(20):
        with pytest.raises(TemplateNotFound):
            await library.get(f"a-long-name-of-a-template-x{n}")
    assert time.process_time() - began < 4


async def test_what_was_used_longest_ago_is_compiled_anew(
    watched: Watched, tmp_path: Path, clock: SteppedClock
) -> None:
    library = over(watched, tmp_path, clock, kept=64)
    for n in range(66):
        await library.publish("news", {**GOOD, "html.j2": f"<p>{n}</p>"})
    first, second = await library.get("news@1"), await library.get("news@2")
    for n in range(3, 66):
        assert await library.get("news@1") is first
        await library.get(f"news@{n}")
    assert await library.get("news@1") is first, "used all along"
    assert await library.get("news@2") is not second, "64 others were used since"


async def test_of_large_templates_fewer_are_kept_compiled(
    watched: Watched, tmp_path: Path, clock: SteppedClock
) -> None:
    library = over(watched, tmp_path, clock, kept=4)
    for n in range(3):
        await library.publish("small", {**GOOD, "html.j2": f"<p>{n}</p>"})
    await library.publish("large", {**GOOD, "html.j2": "<p>a long letter</p>\n" * 1600})
    first, second, third = [await library.get(f"small@{n}") for n in (1, 2, 3)]
    large = await library.get("large@1")
    assert await library.get("small@3") is third
    assert await library.get("large@1") is large, "it counts for two or more and is kept all the same"
    assert await library.get("small@2") is not second
    assert await library.get("small@1") is not first


async def test_few_unknown_names_are_remembered(
    watched: Watched, tmp_path: Path, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.spool.templates._MOST_BELIEVED", 3)
    library = over(watched, tmp_path, clock)

    async def ask(*names: str) -> list[int]:
        for name in names:
            with pytest.raises(TemplateNotFound):
                await library.get(name)
        return [watched.asked["published_templates", name] for name in names]

    assert await ask("a", "b", "c", "a") == [1, 1, 1, 1]
    assert await ask("d", "b") == [1, 2], "b was asked for longest ago"
    assert await ask("d", "b") == [1, 2]
    clock.step(3)
    assert await ask("d", "b") == [2, 3], "and is not believed for ever"


async def test_templates_of_the_folder_are_kept_and_not_published(
    watched: Watched, tmp_path: Path, clock: SteppedClock
) -> None:
    put(tmp_path)
    library = over(watched, tmp_path, clock)
    await library.number()
    store: Any = watched
    assert await store.published_templates() == []
    for path in (tmp_path / "t/a").iterdir():
        path.unlink()
    (tmp_path / "t/a").rmdir()
    await library.reload()
    with pytest.raises(TemplateNotFound):
        await library.get("a")
    assert (await library.get("a@1")).label == "a@1"


async def test_a_reload_asks_the_store_anew(tmp_path: Path, clock: SteppedClock) -> None:
    put(tmp_path)
    stores = [await opened(tmp_path, clock, holder) for holder in ("one", "two")]
    one, two = [TemplateLibrary.load(tmp_path / "t", store, clock) for store in stores]
    with pytest.raises(TemplateNotFound):
        await two.get("news")
    await one.publish("news", GOOD)
    with pytest.raises(TemplateNotFound):
        await two.get("news")
    await two.reload()
    assert (await two.get("news")).label == "news@1"
    for store in stores:
        await store.close()
