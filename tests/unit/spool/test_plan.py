"""Which relays may carry a message: each is asked, and each that refuses says why at the field that would have to change."""

from typing import Any

import pytest

from service.clock import SYSTEM
from service.errors import NoRelayForMessage, RelayNotFound, SenderNotAccepted, ValidationFailed
from service.mail.address import Mailbox
from service.mail.compose import compose
from service.mail.dkim_keys import DkimRing
from service.mail.draft import Attachment, Draft
from service.mail.envelope import Offer
from service.mail.seal import Sealed, seal
from service.relay.config import relay_from
from service.relay.presets import load_presets
from service.relay.router import Router
from service.settings import load
from service.spool.plan import Plan, plan
from service.spool.values import Submission, TemplateUse

ME, YOU = Mailbox("me@example.com"), Mailbox("you@example.org")


def router(**relays: dict[str, Any]) -> Router:
    """Relays that nobody connects to."""
    configs = [
        relay_from(name, {"url": "smtp://me%40example.com:s@127.0.0.1:9?plaintext=allow", **values}, name)
        for name, values in relays.items()
    ]
    return Router(configs, load(), SYSTEM)


def asked(relays: Router, recipients: int = 1, **fields: Any) -> Plan:
    """The plan of a submission with these fields."""
    template = fields.pop("template", None)
    given = {"from_": ME, "to": (YOU,), "subject": "s", "text": "t", **fields}
    draft = Draft(
        message_id="1@example.com", date=0, boundary_seed="x",
        **{name: value for name, value in given.items() if name not in {"relay", "envelope_from"}},
    )  # fmt: skip
    submission = Submission(**(given | ({"text": None, "template": template} if template else {})))
    return plan(relays, DkimRing(()), submission, compose(draft), draft, recipients)


def names(found: Plan) -> tuple[list[str], list[str]]:
    return [each.relay for each in found.able], [each.relay for each in found.refusals]


def faults(caught: ValidationFailed) -> list[tuple[str, str]]:
    return [(each.pointer, each.code) for each in caught.errors]


STRICT = {"cc": False, "bcc": False, "inline": False, "forbidden_extensions": [".exe"]}


async def test_a_message_goes_by_the_relays_that_take_it_and_the_others_say_why_not() -> None:
    found = asked(router(strict=STRICT, other={"priority": 2}), cc=(YOU,), attachments=(Attachment("a.exe", b"x"),))
    assert names(found) == (["other"], ["strict"])
    assert [(each.pointer, each.code, each.detail) for each in found.refusals[0].problems] == [
        ("#/cc", "cc_not_taken", "relay strict takes no Cc"),
        ("#/attachments/0/filename", "forbidden_attachment", "relay strict takes no .exe files"),
    ]
    assert found.route("acme", Submission(ME), sender_decides=False).key == "acme|+.exe+cc|"


async def test_where_none_takes_it_each_fault_of_each_relay_is_told_at_its_field() -> None:
    files = (Attachment("a.txt", b"x"), Attachment("b.png", b"x", None, "b", "inline"), Attachment("c.EXE", b"x"))
    with pytest.raises(NoRelayForMessage) as caught:
        asked(router(strict=STRICT, small={"max_bytes": 100, "priority": 2}), bcc=(YOU,), attachments=files)
    assert faults(caught.value) == [
        ("#/bcc", "bcc_not_taken"), ("#/attachments/1", "inline_not_taken"), ("#/attachments/2/filename", "forbidden_attachment"),
        ("#/attachments/0", "too_large"),
    ]  # fmt: skip
    assert "relay strict takes no Bcc" in caught.value.detail
    assert "relay small takes at most 100 octets, the message has " in caught.value.detail


async def test_many_faults_make_a_short_sentence_and_a_long_list() -> None:
    extensions = [f".x{number}" for number in range(30)]
    files = tuple(Attachment(f"a{extension}", b"x") for extension in extensions)
    with pytest.raises(NoRelayForMessage) as caught:
        asked(router(strict={"forbidden_extensions": extensions}), attachments=files)
    assert len(caught.value.errors) == 30
    assert caught.value.detail.endswith("relay strict takes no .x4 files; and 25 more")


async def test_a_pinned_relay_is_the_only_one_that_is_asked() -> None:
    relays = router(strict=STRICT, other={})
    with pytest.raises(NoRelayForMessage) as caught:
        asked(relays, cc=(YOU,), relay="strict")
    assert faults(caught.value) == [("#/cc", "cc_not_taken")]
    found = asked(relays, cc=(YOU,), relay="other")
    assert names(found) == (["other"], [])
    assert found.route("acme", Submission(ME, relay="other"), sender_decides=True).key == "acme|other+cc|me@example.com"
    with pytest.raises(RelayNotFound, match="did you mean other"):
        asked(relays, relay="others")


async def test_no_relay_takes_the_place_of_the_one_that_is_pinned() -> None:
    relays = router(first={}, second={"priority": 2}, third={"from": ["example.net"]})
    found = asked(relays, relay="second")
    assert names(found) == (["second"], []), "the better one is not even asked"
    route = found.route("acme", Submission(ME, relay="second"), sender_decides=relays.sender_decides())
    assert [relay.name for relay in relays.candidates(route.sender, route.relay, route.needs)] == ["second"]
    with pytest.raises(NoRelayForMessage) as caught:
        asked(relays, relay="third")
    assert [each.detail for each in caught.value.errors] == [
        "relay third may not carry mail from me@example.com (its `from`)"
    ]


async def test_a_size_within_the_mebibyte_of_a_limit_puts_the_relay_into_the_route() -> None:
    relays = router(small={"max_bytes": 2000}, other={"priority": 2})
    fits, not_fits = asked(relays, text="x"), asked(relays, text="x\n" * 2000)
    assert names(fits) == (["small", "other"], [])
    assert fits.route("acme", Submission(ME), sender_decides=False).key == "acme||"
    assert names(not_fits) == (["other"], ["small"])
    assert not_fits.route("acme", Submission(ME), sender_decides=False).key == "acme|!small|"


async def test_a_size_that_its_word_tells_needs_no_name() -> None:
    relays = router(small={"max_bytes": 2000}, other={"priority": 2})
    found = asked(relays, attachments=(Attachment("a.bin", b"x" * 2_000_000),))
    assert found.route("acme", Submission(ME), sender_decides=False).key == "acme|+3M|"


async def test_recipients_count_against_the_bound_of_the_whole_message_and_not_of_a_transaction() -> None:
    relays = router(parts={"max_recipients": 2}, whole={"max_message_recipients": 2, "priority": 2})
    found = asked(relays, recipients=3)
    assert names(found) == (["parts"], ["whole"])
    assert found.route("acme", Submission(ME), sender_decides=False).key == "acme|!whole|"
    with pytest.raises(NoRelayForMessage) as caught:
        asked(relays, recipients=3, relay="whole")
    assert faults(caught.value) == [("#/to", "too_many_recipients")]


async def test_what_is_said_of_html_is_said_of_the_template_that_makes_it() -> None:
    with pytest.raises(NoRelayForMessage) as caught:
        asked(router(small={"max_bytes": 100}), template=TemplateUse("welcome", {}))
    assert faults(caught.value) == [("#/template", "too_large")]


async def test_a_sender_that_all_relays_refuse_is_told_what_it_must_be() -> None:
    strict = {"sender_must_equal_login": True}
    with pytest.raises(SenderNotAccepted, match=r"relay a sends only as me@example\.com") as caught:
        asked(router(a=strict, b={**strict, "priority": 2}), from_=Mailbox("you@example.com"))
    assert faults(caught.value) == [("#/from", "sender_not_accepted")] * 2
    with pytest.raises(NoRelayForMessage) as other:
        asked(router(a=strict, b={"cc": False}), from_=Mailbox("you@example.com"), cc=(YOU,))
    assert set(faults(other.value)) == {("#/from", "sender_not_accepted"), ("#/cc", "cc_not_taken")}


async def test_a_relay_that_refuses_the_address_in_the_envelope_alone_is_named_in_the_route() -> None:
    """By From it would be the better one, at each claim anew."""
    relays = router(a={"sender_must_equal_login": True}, b={"priority": 2})
    found = asked(relays, envelope_from="bounces@example.com")
    assert names(found) == (["b"], ["a"])
    assert [each.pointer for each in found.refusals[0].problems] == ["#/envelope_from"]
    route = found.route(
        "acme", Submission(ME, envelope_from="bounces@example.com"), sender_decides=relays.sender_decides()
    )
    assert route.key == "acme|!a|me@example.com"
    assert [relay.name for relay in relays.candidates(route.sender, None, route.needs)] == ["b"]


async def test_a_relay_for_other_senders_says_so() -> None:
    relays = router(a={"from": ["example.net"]}, b={})
    found = asked(relays)
    assert names(found) == (["b"], ["a"])
    assert found.refusals[0].problems[0].code == "sender_not_listed"
    with pytest.raises(NoRelayForMessage, match=r"may carry mail from me@example\.com"):
        asked(router(a={"from": ["example.net"]}))


async def test_an_address_that_a_relay_cannot_take_is_pointed_at() -> None:
    relays = router(old={}, new={"priority": 2})
    relays.get("old").told(Offer(smtputf8=False, max_size=None))
    found = asked(relays, to=(YOU, Mailbox("用户@xn--fsqu00a.example")))
    assert names(found) == (["new"], ["old"])
    assert [(each.pointer, each.code) for each in found.refusals[0].problems] == [("#/to/1", "smtputf8_not_offered")]


@pytest.mark.parametrize(
    "name", [name for name, preset in load_presets().items() if preset.limits.forbidden_extensions]
)
async def test_each_forbidden_type_of_a_provider_is_refused_for_its_relay_alone(name: str) -> None:
    extension = load_presets()[name].limits.forbidden_extensions[-1]
    relays = router(strict={"preset": name, "sender_must_equal_login": False}, other={"priority": 2})
    found = asked(relays, attachments=(Attachment(f"file{extension.upper()}", b"x"),))
    assert names(found) == (["other"], ["strict"])
    free = router(free={"preset": name, "sender_must_equal_login": False, "forbidden_extensions": []})
    assert names(asked(free, attachments=(Attachment(f"file{extension}", b"x"),))) == (["free"], [])


async def test_tencent_takes_no_copies_no_inline_files_and_no_other_formats() -> None:
    relays = router(tencent={"preset": "tencentses", "sender_must_equal_login": False})
    for given, code in [
        ({"cc": (YOU,)}, "cc_not_taken"),
        ({"bcc": (YOU,)}, "bcc_not_taken"),
        ({"attachments": (Attachment("a.png", b"x", None, "a", "inline"),)}, "inline_not_taken"),
        ({"amp": "<html ⚡4email></html>"}, "alternatives_not_taken"),
        ({"recipients": 51}, "too_many_recipients"),
    ]:
        with pytest.raises(NoRelayForMessage) as caught:
            asked(relays, **given)
        assert [each.code for each in caught.value.errors] == [code]


async def test_equal_relays_are_asked_once_and_each_stands_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed: list[str] = []

    def counted(*arguments: Any) -> Sealed:
        sealed.append(arguments[-1].relay)
        return seal(*arguments)

    monkeypatch.setattr("service.spool.plan.seal", counted)
    equal = {f"equal{number}": {} for number in range(20)}
    found = asked(router(**equal, bare={"cc": False}, small={"max_bytes": 10}, unsigned={"dkim": False}), cc=(YOU,))
    able, refusing = names(found)
    assert sorted(able) == sorted([*equal, "unsigned"])
    assert sorted(refusing) == ["bare", "small"]
    assert len(sealed) == 4, "one of the equal ones speaks for all; who differs in anything speaks for itself"


async def test_what_a_relay_was_told_since_makes_it_unequal() -> None:
    relays = router(a={}, b={})
    assert names(asked(relays)) == (["a", "b"], [])
    assert relays.get("a").kind == relays.get("b").kind
    relays.get("b").told(Offer(smtputf8=False, max_size=10))
    assert names(asked(relays)) == (["a"], ["b"])
