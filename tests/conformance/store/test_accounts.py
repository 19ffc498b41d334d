"""What processes tell each other about relays: one right to log in, troubles that last, events told once."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from service.mail.trouble import OPERATOR, PROVEN_FOR, Answer, Login, RelayEvent, Standing, Trouble
from service.store.port import Store
from service.store.values import RelayView
from tests.support.clock import EPOCH, SteppedClock

ACCOUNT, MARK, OTHER_MARK = "me@163.com@smtp.163.com", "11111111", "22222222"
MINUTE = 60_000
Opener = Callable[..., Awaitable[Store]]


def event(kind: str = "broken", at: int = EPOCH, account: str = ACCOUNT) -> RelayEvent:
    return RelayEvent(account, "r", at, kind, "why")


def refused(at: int = EPOCH, **given: Any) -> Trouble:
    """A login that was refused, and is probed after a minute."""
    trouble = Trouble(
        "auth-refused", at, at + MINUTE, "535", MARK, True, True, length=60.5, steps=(60.0, 600.0, float("inf"))
    )
    return replace(trouble, **given)


def rate(at: int = EPOCH, **given: Any) -> Trouble:
    return replace(Trouble("rate", at, at + 5 * MINUTE, "451"), **given)


async def standing(store: Store) -> Standing:
    return (await store.relay_accounts()).get(ACCOUNT, Standing())


async def ask(store: Store, prober: str = "me/r", at: int = EPOCH, mark: str = MARK, lease: float = 60) -> Answer:
    return await store.ask_login(ACCOUNT, mark, prober, at, lease)


async def kinds(store: Store) -> list[str]:
    return [each.kind for each in await store.relay_events(ACCOUNT, 50)]


async def test_relay_accounts_tells_what_was_recorded_to_the_last_digit(store: Store) -> None:
    assert await store.relay_accounts() == {}
    pause = Trouble(OPERATOR, EPOCH, None, "by hand")
    for each in (refused(), rate(), pause):
        await store.record_trouble(ACCOUNT, each, None)
    assert await standing(store) == Standing({(each.kind, each.mark): each for each in (refused(), rate(), pause)})


async def test_ask_login_gives_the_right_to_one_over_all_processes(store: Store, open_another: Opener) -> None:
    other = await open_another("other")
    assert await ask(store) is Answer.GRANTED
    assert await ask(store) is Answer.GRANTED, "who has it may ask again"
    assert await ask(other, "other/r") is Answer.WAIT
    assert await ask(store, "me/another-relay") is Answer.WAIT
    assert (await standing(other)).login == Login(0, "", MARK, "me/r", EPOCH + MINUTE)


async def test_ask_login_finds_the_right_free_when_its_lease_is_over(store: Store, open_another: Opener) -> None:
    other = await open_another("other")
    await ask(store)
    assert await ask(other, "other/r", EPOCH + MINUTE - 1) is Answer.WAIT
    assert await ask(other, "other/r", EPOCH + MINUTE) is Answer.GRANTED


async def test_ask_login_does_not_wait_for_a_process_that_is_gone(store: Store, open_another: Opener) -> None:
    other = await open_another("other")
    await ask(other, "other/r")
    await other.close()
    assert (await standing(store)).login.prober == ""
    assert await ask(store) is Answer.GRANTED


async def test_ask_login_refuses_while_the_account_rests_and_grants_a_probe_afterwards(store: Store) -> None:
    await store.record_trouble(ACCOUNT, refused(), None)
    assert await ask(store, at=EPOCH + MINUTE - 1) is Answer.REFUSED
    assert await ask(store, at=EPOCH + MINUTE) is Answer.GRANTED
    await store.record_trouble(ACCOUNT, Trouble(OPERATOR, EPOCH, None, "by hand"), None)
    assert await ask(store, at=EPOCH + 1000 * MINUTE) is Answer.REFUSED


async def test_ask_login_gives_one_who_forces_it_the_right_once_in_the_interval_and_to_no_two(
    store: Store, open_another: Opener
) -> None:
    other = await open_another("other")
    later = EPOCH + MINUTE
    await store.record_trouble(ACCOUNT, refused(until=EPOCH + 10 * MINUTE, length=600.0), None)
    assert await ask(store, at=later) is Answer.REFUSED
    assert await store.ask_login(ACCOUNT, MARK, "me/r", later - 1, 60, 60) is Answer.REFUSED, "too soon"
    assert await store.ask_login(ACCOUNT, MARK, "me/r", later, 60, 60) is Answer.GRANTED
    assert await other.ask_login(ACCOUNT, MARK, "other/r", later, 60, 60) is Answer.WAIT
    await store.fail_login(refused(later, until=EPOCH + 11 * MINUTE, length=600.0), "me/r", event())
    assert await other.ask_login(ACCOUNT, MARK, "other/r", later + 1, 60, 60) is Answer.REFUSED
    await store.clear_troubles(event("resumed"))
    await store.record_trouble(ACCOUNT, Trouble(OPERATOR, EPOCH, None, "by hand"), None)
    assert await other.ask_login(ACCOUNT, MARK, "other/r", later, 60, 60) is Answer.REFUSED, (
        "it does not rest for a login"
    )


async def test_ask_login_with_another_secret_does_not_inherit_the_refusals_of_the_old_one(store: Store) -> None:
    assert await ask(store) is Answer.GRANTED
    await store.fail_login(refused(), "me/r", event())
    assert await ask(store) is Answer.REFUSED
    assert await ask(store, mark=OTHER_MARK) is Answer.GRANTED
    assert await kinds(store) == ["secret_changed", "broken"]
    assert await ask(store, at=EPOCH + MINUTE, mark=OTHER_MARK) is Answer.GRANTED
    assert await kinds(store) == ["secret_changed", "broken"], "told once"
    assert (await standing(store)).of(OTHER_MARK) == []


async def test_prove_login_frees_everybody_who_has_that_secret_for_a_minute(store: Store, open_another: Opener) -> None:
    other = await open_another("other")
    await ask(store)
    assert await store.prove_login(MARK, "me/r", event("opened")) is False
    assert await ask(other, "other/r", EPOCH + PROVEN_FOR - 1) is Answer.PROVEN
    assert await ask(other, "other/r", EPOCH + PROVEN_FOR - 1, OTHER_MARK) is Answer.GRANTED
    await store.release_login(ACCOUNT, "other/r")
    assert await ask(other, "other/r", EPOCH + PROVEN_FOR) is Answer.GRANTED
    assert await kinds(store) == ["secret_changed", "secret_changed"], "nothing had been broken, so nothing opened"


async def test_prove_login_ends_what_a_login_disproves_and_keeps_the_steps_of_the_rest(store: Store) -> None:
    disabled = refused(kind="account-disabled", login=False)
    others = refused(mark=OTHER_MARK)
    for each in (refused(), disabled, rate(), others):
        await store.record_trouble(ACCOUNT, each, None)
    assert await ask(store, at=EPOCH + 5 * MINUTE) is Answer.GRANTED
    assert await store.prove_login(MARK, "me/r", event("opened", EPOCH + 5 * MINUTE)) is True
    found = await standing(store)
    assert set(found.troubles.values()) == {replace(disabled, probe=False), rate(), others}
    assert (found.login.prober, found.login.proven_at) == ("", EPOCH + 5 * MINUTE)
    assert await kinds(store) == ["opened"]


async def test_a_login_that_succeeds_ends_no_pause_that_still_lasts_and_is_about_something_else(store: Store) -> None:
    silent = refused(kind="in-doubt", login=False, mark="")
    await store.record_trouble(ACCOUNT, silent, None)
    assert await store.prove_login(MARK, "", event("opened", EPOCH + 1)) is False
    assert (await standing(store)).troubles["in-doubt", ""] == silent
    assert await ask(store, at=EPOCH + MINUTE) is Answer.GRANTED, "proven or not: one probes"


async def test_fail_login_records_the_trouble_and_gives_the_right_back_at_once(
    store: Store, open_another: Opener
) -> None:
    other = await open_another("other")
    await store.prove_login(MARK, "", event("opened", EPOCH - 2 * PROVEN_FOR))
    await ask(store)
    assert await store.fail_login(refused(), "me/r", event()) is True
    found = await standing(other)
    assert (found.troubles["auth-refused", MARK], found.login.prober, found.login.proven_at) == (refused(), "", 0)
    assert await ask(other, "other/r", EPOCH + 1) is Answer.REFUSED, "and nobody finds it free before that"


async def test_release_login_is_only_for_who_has_it(store: Store) -> None:
    await ask(store)
    assert await store.release_login(ACCOUNT, "me/other") is False
    assert await store.release_login(ACCOUNT, "") is False
    assert await store.release_login(ACCOUNT, "me/r") is True
    assert (await standing(store)).login.prober == ""


async def test_record_trouble_keeps_what_lasts_longer_and_tells_of_it_once(store: Store, open_another: Opener) -> None:
    other = await open_another("other")
    assert await store.record_trouble(ACCOUNT, rate(), event("paused")) is True
    assert await other.record_trouble(ACCOUNT, rate(EPOCH + 500), event("paused")) is False, "the same one, heard later"
    assert (await standing(store)).troubles["rate", ""].until == EPOCH + 500 + 5 * MINUTE
    assert await store.record_trouble(ACCOUNT, rate(until=EPOCH + MINUTE), event("paused")) is False
    assert (await standing(store)).troubles["rate", ""].until == EPOCH + 500 + 5 * MINUTE
    later = rate(EPOCH + 6 * MINUTE, step=1, times=2)
    assert await store.record_trouble(ACCOUNT, later, event("paused")) is True
    assert await kinds(store) == ["paused", "paused"]


async def test_relay_accounts_cuts_what_a_clock_far_ahead_has_told_to_its_length_and_for_all(
    store: Store, open_another: Opener, clock: SteppedClock
) -> None:
    other = await open_another("other")
    ahead = EPOCH + 1000 * MINUTE
    for each in (rate(ahead, length=300.0), refused(ahead), Trouble(OPERATOR, ahead, None, "by hand")):
        await store.record_trouble(ACCOUNT, each, None)
    found = (await standing(store)).troubles
    assert found["rate", ""] == rate(length=300.0)
    assert found["auth-refused", MARK] == refused(until=EPOCH + 60_500)
    assert found[OPERATOR, ""].at == ahead, "what has no end is not cut"
    clock.step(200)
    assert (await standing(other)).troubles == found, "once: it ends at the same moment for all"
    await store.clear_troubles(event("resumed"))
    await store.record_trouble(ACCOUNT, refused(ahead), None)
    await standing(other)
    assert await ask(store, at=clock.now() + 60_500) is Answer.GRANTED


async def test_record_trouble_does_not_shorten_an_operators_pause(store: Store) -> None:
    await store.record_trouble(ACCOUNT, Trouble(OPERATOR, EPOCH, None, "by hand"), None)
    assert await store.record_trouble(ACCOUNT, Trouble(OPERATOR, EPOCH, EPOCH + 1, "shorter"), None) is False
    assert (await standing(store)).troubles[OPERATOR, ""].reason == "by hand"


async def test_a_broken_account_is_proven_no_more(store: Store) -> None:
    await store.prove_login(MARK, "", event("opened"))
    await store.record_trouble(ACCOUNT, refused(kind="network", mark=""), None)
    assert (await standing(store)).login.proven_at == 0


async def test_forgive_trouble_forgets_only_what_was_believed(store: Store) -> None:
    await store.record_trouble(ACCOUNT, rate(), None)
    assert await store.forgive_trouble(ACCOUNT, rate(EPOCH - 1)) is False
    assert await store.forgive_trouble(ACCOUNT, rate()) is True
    assert (await standing(store)).troubles == {}


async def test_clear_troubles_ends_all_of_one_account_and_of_no_other(store: Store) -> None:
    for account in (ACCOUNT, "another"):
        for each in (refused(), refused(mark=OTHER_MARK), Trouble(OPERATOR, EPOCH, None, "by hand")):
            await store.record_trouble(account, each, None)
    assert await store.clear_troubles(event("resumed")) == 3
    assert (await standing(store)).troubles == {}
    assert len((await store.relay_accounts())["another"].troubles) == 3
    assert await kinds(store) == ["resumed"]


async def test_relay_events_are_those_of_one_account_newest_first_and_bounded(store: Store) -> None:
    for number in range(230):
        await store.add_relay_event(event("alert", EPOCH + number))
    await store.add_relay_event(event("paused", account="another"))
    found = await store.relay_events(ACCOUNT, 1000)
    assert [each.at for each in found] == [EPOCH + number for number in range(229, 29, -1)]
    assert len(await store.relay_events(ACCOUNT, 50)) == 50
    assert await store.relay_events("another", 50) == [event("paused", account="another")]


VIEW = RelayView("me", "r", EPOCH, 2, 1, 7, "250 ok", EPOCH - 5, "", 0)


async def test_show_relays_keeps_the_last_view_of_each_process(store: Store) -> None:
    other = replace(VIEW, holder="other", seen_at=EPOCH - 9_000)
    await store.show_relays([VIEW, other])
    await store.show_relays([replace(VIEW, sent=8)])
    assert sorted(await store.relay_views(EPOCH - 15_000), key=str) == sorted([replace(VIEW, sent=8), other], key=str)
    assert await store.relay_views(EPOCH - 9_000) == [replace(VIEW, sent=8)], "what is old tells nothing"


async def test_purge_relays_deletes_what_tells_nothing_any_more(store: Store) -> None:
    day = 24 * 60 * MINUTE
    for number in range(5):
        await store.add_relay_event(event(at=EPOCH + number))
    await store.show_relays([VIEW])
    for each in (rate(), Trouble(OPERATOR, EPOCH, None, "by hand"), rate(EPOCH + day, kind="quota")):
        await store.record_trouble(ACCOUNT, each, None)
    assert await store.purge_relays(EPOCH + day + MINUTE, EPOCH + 3, 2) == 2, "in small steps"
    assert await store.purge_relays(EPOCH + day + 6 * MINUTE, EPOCH + 3, 2) == 1
    assert [each.at for each in await store.relay_events(ACCOUNT, 50)] == [EPOCH + 4, EPOCH + 3]
    assert await store.relay_views(0) == []
    assert {kind for kind, _ in (await standing(store)).troubles} == {OPERATOR, "quota"}


@pytest.mark.parametrize("prober", ["me/r", ""])
async def test_what_is_asked_for_one_after_the_other_is_done_in_that_order(store: Store, prober: str) -> None:
    """None of them is awaited before the next is asked for."""
    await ask(store)
    failed = store.fail_login(refused(), "me/r", event())
    proven = store.prove_login(MARK, prober, event("opened", EPOCH + 2 * MINUTE))
    paused = store.record_trouble(ACCOUNT, rate(), event("paused"))
    assert [await paused, await proven, await failed] == [True, True, True]
    assert await kinds(store) == ["paused", "opened", "broken"]
