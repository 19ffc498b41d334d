"""Whether another relay is asked for a message that one can't carry, and what is told when none is left."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from service.clock import SYSTEM
from service.errors import StorageUnavailable
from service.mail.lifecycle import Event
from service.mail.outcome import Action, Failure, Phase, Verdict, judge
from service.mail.reply import MAX_TEXT, Reply
from service.mail.route import Route
from service.relay.config import relay_from
from service.relay.policy import policy_for
from service.relay.port import RecipientResult
from service.relay.router import Router
from service.settings import load
from service.spool.elsewhere import Elsewhere
from service.spool.settling import judge_all
from service.store.values import Delivery, DueRecipient, RecipientSettlement, Settlement
from tests.support.clock import EPOCH

DELIVERY = Delivery(
    7, False, "a", "msg_1", "acme", "id@x", "acme||", 1, "at_least_once", EPOCH, EPOCH, EPOCH + 10**9, "me@example.com", "me@example.com",
    False, None, 10, None, (DueRecipient(0, "c@d.example", 0, 0), DueRecipient(1, "e@d.example", 0, 0)), (b"x",),
)  # fmt: skip
LACKS = RecipientResult(Phase.MAIL, failure=Failure.CAPABILITY, detail="the relay does not offer SMTPUTF8")
TOO_BIG = RecipientResult(Phase.MAIL, Reply(552, "5.3.4", "too big"))
LEFT_OUT = RecipientResult(Phase.MAIL, failure=Failure.LEFT_OUT)
REFUSED = RecipientResult(Phase.MAIL, Reply(550, "5.7.1", "not you"))


class Log:
    """A store that has a delivery log, or none."""

    def __init__(self, *lines: dict[str, Any], away: bool = False) -> None:
        self._lines, self._away = lines, away

    async def list_events(self, account: str, id: str) -> Sequence[Any]:
        if self._away:
            raise StorageUnavailable("away")
        return [SimpleNamespace(data=data) for data in self._lines]


def router(**relays: dict[str, Any]) -> Router:
    """Relays that nobody connects to."""
    configs = [
        relay_from(name, {"url": "smtp://login%40example.com:s@127.0.0.1:9?plaintext=allow", **values}, name)
        for name, values in relays.items()
    ]
    return Router(configs, load(), SYSTEM)


def elsewhere(*lines: dict[str, Any], away: bool = False, **relays: dict[str, Any]) -> Elsewhere:
    store: Any = Log(*lines, away=away)
    return Elsewhere(router(**relays), store)


def verdicts(*results: RecipientResult, delivery: Delivery = DELIVERY) -> list[Verdict]:
    return judge_all(policy_for(""), delivery, results, EPOCH)


@pytest.mark.parametrize("result", [LACKS, TOO_BIG])
async def test_another_relay_is_asked_and_this_one_no_more(result: RecipientResult) -> None:
    found = elsewhere(a={}, b={"priority": 2}).resolve(DELIVERY, verdicts(result, LEFT_OUT))
    assert not found.ended
    assert found.route == "acme|~a|"
    assert [(each.action, each.charged) for each in found.verdicts] == [
        (Action.ELSEWHERE, False),
        (Action.SPLIT, False),
    ]


@pytest.mark.parametrize(
    ("result", "event", "action", "kind"),
    [(LACKS, Event.FAULT, Action.FAILED, "no-relay"), (TOO_BIG, Event.REFUSED, Action.PERM, "too-big")],
)
async def test_when_none_is_left_the_message_ends_and_its_route_is_as_it_was_accepted(
    result: RecipientResult, event: Event, action: Action, kind: str
) -> None:
    delivery = replace(DELIVERY, route="acme|+cc!x~b|")
    found = elsewhere(a={}, b={"priority": 2}).resolve(delivery, verdicts(result, result))
    assert (found.ended, found.route) == (True, "acme|+cc!x|")
    assert {(each.event, each.action, each.kind, each.charged) for each in found.verdicts} == {
        (event, action, kind, True)
    }


@pytest.mark.parametrize(
    ("route", "other"),
    [
        ("acme|a|", {}),  # pinned
        ("acme|!b|", {}),  # refused at the door
        ("acme|+cc|", {"cc": False}),
        ("acme||me@example.com", {"from": ["example.net"]}),
        ("acme||me@example.com", {"sender_must_equal_login": True}),  # its seal would fail
    ],
)
async def test_a_relay_that_may_not_carry_it_is_none_that_is_left(route: str, other: dict[str, Any]) -> None:
    delivery = replace(DELIVERY, route=route)
    assert elsewhere(a={}, b=other).resolve(delivery, verdicts(TOO_BIG, TOO_BIG)).ended


async def test_a_relay_that_rests_is_waited_for() -> None:
    """Whether one takes mail now is no question of whether it can carry the message."""
    made = router(a={}, b={"priority": 2})
    await made.get("b").hold("an operator's pause")
    store: Any = Log()
    assert Elsewhere(made, store).resolve(DELIVERY, verdicts(TOO_BIG, TOO_BIG)).route == "acme|~a|"


async def test_any_other_verdict_stays_as_it_is() -> None:
    given = verdicts(REFUSED, LEFT_OUT)
    found = elsewhere(a={}, b={}).resolve(DELIVERY, given)
    assert (found.verdicts, found.route, found.ended) == (given, None, False)


async def test_relays_that_were_found_unable_are_asked_again_only_where_no_other_is() -> None:
    made = router(a={}, b={"priority": 2})
    names = [relay.name for relay in made.candidates("", None, Route("acme").without("a").needs)]
    assert names == ["b"]
    names = [relay.name for relay in made.candidates("", None, Route("acme").without("a").without("b").needs)]
    assert names == ["a", "b"], "or a change of the relays would leave it without any"
    assert made.candidates("", None, ("!a", "!b")) == (), "what was refused at the door stays refused"


# --- what is told -----------------------------------------------------------------------------------------------------


def ended(result: RecipientResult) -> Settlement:
    verdict = judge(policy_for(""), result.phase, result.reply, result.failure)
    reply = result.reply
    each = RecipientSettlement(
        0, Event.REFUSED, verdict.kind, "mail", True, code=reply.code if reply else None,
        enhanced=reply.enhanced if reply else "", text=reply.text if reply else result.detail,
    )  # fmt: skip
    waiting = RecipientSettlement(1, Event.DEFER, "too-many-recipients", "mail", False, due_at=EPOCH, text="waits")
    return Settlement(7, "msg_1", "acme", EPOCH, "refused", [each, waiting])


LINES = (
    {"traceparent": "x"},
    {"relay": "b", "class": "temporary", "action": "TEMP", "text": "another matter"},
    {"relay": "b", "class": "too-big", "action": "ELSEWHERE", "code": 552, "enhanced_code": "5.3.4", "text": "no"},
    {"relay": "old", "class": "too-big", "action": "ELSEWHERE", "code": 552, "text": "of an earlier try"},
)


async def test_each_relays_reason_is_told_in_its_words() -> None:
    delivery = replace(DELIVERY, route="acme|+cc!door~b|me@example.com")
    made = elsewhere(
        *LINES, a={}, b={}, door={}, strict={"cc": False}, other={"from": ["example.net"]}, old={"from": ["x.example"]}
    )
    told = await made.told(delivery, ended(LACKS))
    assert told.recipients[0].text == (
        "no relay can carry this message: b: 552 5.3.4 no; a: the relay does not offer SMTPUTF8; "
        "door: could not take it when it was accepted; strict: does not take what it needs (cc); "
        "other: may not carry mail from me@example.com; old: may not carry mail from me@example.com"
    )
    assert told.recipients[1].text == "waits"


async def test_the_sender_that_a_rule_refuses_is_named_that_of_from_or_that_of_the_envelope() -> None:
    made = elsewhere(a={}, strict={"sender_must_equal_login": True, "from": ["login@example.com"]})
    for from_email, words in (
        ("login@example.com", "strict: may not carry mail with the envelope_from me@example.com"),
        ("other@example.com", "strict: may not carry mail from other@example.com"),
    ):
        told = await made.told(replace(DELIVERY, from_email=from_email), ended(TOO_BIG))
        assert told.recipients[0].text == f"no relay can carry this message: a: 552 5.3.4 too big; {words}"


def test_mail_whose_envelope_a_rule_refuses_is_asked_for_no_relay_with_such_a_rule() -> None:
    made = elsewhere(a={}, strict={"sender_must_equal_login": True})
    rules = {name: router(a={}, strict={"sender_must_equal_login": True}).get(name).rule for name in ("a", "strict")}
    delivery = replace(DELIVERY, from_email="login@example.com", route="acme|+cc~b|login@example.com")
    route = made.refused_envelope(delivery, rules["strict"])
    assert route == "acme|+cc@me%40example.com~b|login@example.com"
    assert made.refused_envelope(replace(delivery, from_email="x@example.com"), rules["strict"]) is None, (
        "From is refused"
    )
    relays, parsed = router(a={}, strict={"sender_must_equal_login": True}), Route.parse(route)
    assert [each.name for each in relays.candidates(parsed.sender, None, parsed.needs)] == ["a"]
    assert len(relays.candidates(parsed.sender, None, Route.parse(delivery.route).needs)) == 2


async def test_of_a_pinned_message_only_its_relay_is_told() -> None:
    delivery = replace(DELIVERY, route="acme|a|")
    told = await elsewhere(*LINES, a={}, b={}).told(delivery, ended(TOO_BIG))
    assert told.recipients[0].text == "no relay can carry this message: a: 552 5.3.4 too big"
    assert (told.recipients[0].code, told.recipients[0].enhanced) == (552, "5.3.4"), "the last reply stays"


async def test_without_the_log_it_ends_with_what_is_known() -> None:
    delivery = replace(DELIVERY, route="acme|~b|")
    told = await elsewhere(away=True, a={}, b={}).told(delivery, ended(TOO_BIG))
    assert told.recipients[0].text == "no relay can carry this message: a: 552 5.3.4 too big"


async def test_many_relays_make_no_endless_line() -> None:
    names = {f"relay{number}": {"from": ["example.net"]} for number in range(100)}
    told = await elsewhere(a={}, **names).told(replace(DELIVERY, route="acme||me@example.com"), ended(TOO_BIG))
    assert len(told.recipients[0].text) == MAX_TEXT
