"""Versions of templates: numbered once, kept for good, the same for every process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.store.port import Store
from service.store.shown import TemplateVersion

Opener = Callable[..., Awaitable[Store]]


async def publish(store: Store, name: str, digest: str, *, now: int = 1, current: bool = True) -> int:
    return await store.publish_template(name, digest, f'{{"html.j2": "{digest}"}}', now, current=current)


async def current(store: Store, name: str | None = None) -> list[tuple[str, int]]:
    return [(each.name, each.number) for each in await store.published_templates(name)]


async def test_versions_are_numbered_from_one_for_each_name(store: Store) -> None:
    assert [await publish(store, "a", "d1"), await publish(store, "a", "d2"), await publish(store, "b", "d1")] == [
        1,
        2,
        1,
    ]


async def test_the_same_files_keep_their_number_and_their_time(store: Store) -> None:
    assert [await publish(store, "a", each, now=at) for at, each in enumerate(("d1", "d2", "d1"), 10)] == [1, 2, 1]
    assert await store.template_versions("a", 10) == [
        TemplateVersion("a", 2, "d2", 11),
        TemplateVersion("a", 1, "d1", 10),
    ]


async def test_publishing_old_files_again_makes_them_the_current_ones(store: Store) -> None:
    for digest in ("d1", "d2", "d1"):
        await publish(store, "a", digest)
    assert await current(store, "a") == [("a", 1)]


async def test_a_version_that_is_only_kept_is_not_published(store: Store) -> None:
    assert await publish(store, "a", "d1", current=False) == 1
    assert await current(store) == []
    await publish(store, "a", "d2")
    await publish(store, "a", "d3", current=False)
    assert await current(store, "a") == [("a", 2)]


async def test_published_names_are_listed_in_order_or_one_by_one(store: Store) -> None:
    for name in ("c", "a", "b"):
        await publish(store, name, "d")
    assert await current(store) == [("a", 1), ("b", 1), ("c", 1)]
    assert await current(store, "b") == [("b", 1)]
    assert await current(store, "nope") == []


async def test_a_retired_name_means_nothing_and_its_versions_stay(store: Store) -> None:
    await publish(store, "a", "d1")
    assert await store.retire_template("a") is True
    assert await store.retire_template("a") is False
    assert await current(store) == []
    assert [each.number for each in await store.template_versions("a", 10)] == [1]
    assert await store.template_files("a", 1) == '{"html.j2": "d1"}'
    assert await publish(store, "a", "d2") == 2, "numbers are never given twice"


async def test_the_newest_versions_come_first_and_no_more_than_asked_for(store: Store) -> None:
    for number in range(5):
        await publish(store, "a", f"d{number}")
    assert [each.number for each in await store.template_versions("a", 3)] == [5, 4, 3]
    assert await store.template_versions("nope", 3) == []


async def test_the_files_of_a_version_are_what_was_kept(store: Store) -> None:
    files = '{"html.j2": "字 \\u0000 😀 ' + "x" * 300_000 + '"}'
    assert await store.publish_template("a", "d", files, 1, current=True) == 1
    assert await store.publish_template("a", "d", "other files, same digest", 1, current=True) == 1
    assert await store.template_files("a", 1) == files
    assert await store.template_files("a", 2) is None
    assert await store.template_files("b", 1) is None


async def test_another_process_sees_the_same_numbers(store: Store, open_another: Opener) -> None:
    other = await open_another("other")
    assert await publish(store, "a", "d1") == 1
    assert await publish(other, "a", "d2") == 2
    assert await publish(store, "a", "d2", current=False) == 2
    assert await current(store) == await current(other) == [("a", 2)]
    await other.retire_template("a")
    assert await current(store) == []


async def test_two_processes_that_publish_at_once_give_each_form_one_number(store: Store, open_another: Opener) -> None:
    other = await open_another("other")
    work: list[Any] = [publish(one, "a", f"d{n}") for n in range(10) for one in (store, other)]
    numbers = await asyncio.gather(*work)
    assert numbers[::2] == numbers[1::2]
    assert sorted(numbers[::2]) == list(range(1, 11))


@pytest.mark.parametrize("name", ["a'; DROP TABLE template_versions; --", "字", ""])
async def test_a_name_is_only_a_name(store: Store, name: str) -> None:
    assert await publish(store, name, "d") == 1
    assert await current(store, name) == [(name, 1)]
