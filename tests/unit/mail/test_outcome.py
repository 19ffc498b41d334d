"""The policy: what a reply or a failure means, row by row, with the near misses (replies.tsv)."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail.lifecycle import Event, State, apply, target
from service.mail.outcome import (
    BEFORE_MAIL,
    Action,
    Failure,
    Phase,
    Policy,
    Scope,
    judge_failure,
    judge_reply,
    no_relay_left,
)
from service.mail.reply import Reply, make_reply
from service.mail.reply_words import words_of
from service.relay.policy import builtin_rules, parse_rules, policy_for
from service.relay.presets import load_presets

PRESETS = ("", *load_presets())
POLICIES = {name: policy_for(name) for name in PRESETS}
ROWS = [rule.name for rule in builtin_rules()]


@dataclass(frozen=True)
class Example:
    """One line of replies.tsv."""

    kind: str
    phase: Phase
    preset: str
    near: tuple[str, ...]
    who: str
    text: str

    @property
    def reply(self) -> Reply:
        lines = self.text.split("\\n")
        return make_reply(int(lines[0][:3]), [line[4:] for line in lines])

    @property
    def policy(self) -> Policy:
        return POLICIES[self.preset]


def _read() -> list[Example]:
    lines = (Path(__file__).parent / "replies.tsv").read_text(encoding="utf-8").splitlines()
    columns = [line.split("\t") for line in lines if not line.startswith("#")]
    return [
        Example(kind, Phase(phase), preset, tuple(filter(None, near.split(","))), who, text)
        for kind, phase, preset, near, who, text in columns
    ]


EXAMPLES = _read()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.phase} {example.text[:60]}")
def test_a_reply_means_what_it_means_and_not_what_it_looks_like(example: Example) -> None:
    verdict = judge_reply(example.policy, example.phase, example.reply)
    assert verdict.kind == example.kind
    assert verdict.suppress == (example.kind == "bad-address"), "nothing else takes an address out of use"
    rule = example.policy.rule_for(example.phase, example.reply)
    assert rule is not None
    assert rule.name not in example.near


def test_the_corpus_is_large_real_and_full_of_near_misses() -> None:
    real = [example for example in EXAMPLES if example.who != "made up"]
    assert len({example.text for example in real}) >= 200
    assert sum(bool(example.near) for example in real) * 2 >= len(real)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_an_example_and_a_near_miss(row: str) -> None:
    matched = [each for each in EXAMPLES if (rule := each.policy.rule_for(each.phase, each.reply)) and rule.name == row]
    assert matched, "no reply of the corpus is decided by this row"
    assert any(row in example.near for example in EXAMPLES), "no reply of the corpus only looks like this row"


def test_the_corpus_names_rows_that_exist() -> None:
    assert {name for example in EXAMPLES for name in example.near} <= set(ROWS)


RELAYS_FAULT = {"auth-throttle", "auth-temporary", "auth-refused", "account-disabled", "auth-lost", "relay-denied",
                "concurrency", "rate", "quota", "connection-limit", "stale", "ip-blocked", "protocol", "refused",
                "refused-for-now"}  # fmt: skip


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.text[:60])
def test_what_is_the_relays_fault_ends_no_message_and_charges_none(example: Example) -> None:
    verdict = judge_reply(example.policy, example.phase, example.reply)
    if example.kind in RELAYS_FAULT:
        assert verdict.event in (Event.DEFER, Event.NOT_STARTED)
        assert not verdict.charged
        assert verdict.scope in (Scope.RELAY, Scope.CONNECTION)
    if verdict.scope is Scope.RELAY:
        assert verdict.pauses, "without a pause it would be tried again at once, for ever"


def test_one_row_suppresses_and_it_speaks_of_refused_recipients_only() -> None:
    rules = [rule for rule in builtin_rules() if rule.verdict.suppress]
    assert {rule.verdict.kind for rule in rules} == {"bad-address"}
    for rule in rules:
        assert rule.phases == {Phase.RCPT}
        assert min(rule.codes) >= 500


TEXTS = st.one_of(
    st.sampled_from([example.text[4:] for example in EXAMPLES]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=200),
)


@given(st.sampled_from(list(Phase)), st.integers(200, 599), TEXTS, st.sampled_from(PRESETS))
def test_every_reply_in_every_phase_leads_out_of_sending(phase: Phase, code: int, text: str, preset: str) -> None:
    verdict = judge_reply(POLICIES[preset], phase, make_reply(code, [text]))
    apply(State.SENDING, verdict.event)
    assert (verdict.event is Event.ACCEPTED) == (phase is Phase.DOT and code < 300), code
    assert not verdict.suppress or (phase is Phase.RCPT and code >= 500)


@pytest.mark.parametrize("code", [300, 334, 354, 399])
def test_a_reply_that_is_none_to_the_final_dot_leaves_the_message_in_doubt_as_a_lost_one(code: int) -> None:
    for policy in POLICIES.values():
        assert judge_reply(policy, Phase.DOT, make_reply(code, ["go"])) == judge_failure(Phase.DOT, Failure.LOST)


@given(st.sampled_from(sorted(BEFORE_MAIL)), st.integers(200, 599), TEXTS, st.sampled_from(PRESETS))
def test_before_mail_no_reply_says_anything_of_a_message(phase: Phase, code: int, text: str, preset: str) -> None:
    verdict = judge_reply(POLICIES[preset], phase, make_reply(code, [text]))
    assert (verdict.event, verdict.scope, verdict.charged) == (Event.NOT_STARTED, Scope.RELAY, False)
    assert verdict.pauses


@given(st.integers(400, 499), TEXTS, st.sampled_from([Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT]))
def test_a_temporary_refusal_ends_a_message_only_where_the_sender_is_at_fault(
    code: int, text: str, phase: Phase
) -> None:
    for policy in POLICIES.values():
        verdict = judge_reply(policy, phase, make_reply(code, [text]))
        if target(verdict.event) is not State.DEFERRED:
            assert (verdict.kind, verdict.action) in {("sender-mismatch", Action.FAILED), ("malformed", Action.FAILED)}


@pytest.mark.parametrize("code", [503, 421, 450])
@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA])
def test_neither_503_nor_a_temporary_code_is_ever_for_good(code: int, phase: Phase) -> None:
    assert judge_reply(POLICIES[""], phase, make_reply(code, ["5.1.1 no such user"])).event is Event.DEFER


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<user.unknown@example.org>: Access denied", "<>: Access denied"),
        ("<unknown[203.0.113.5]>: Client host rejected", "<>: Client host rejected"),
        ("no.such.user@example.org is fine", "<> is fine"),
        ('<"MI:SFQ too many"@x.example> nobody', "<> nobody"),
        ("User unknown", "User unknown"),
    ],
)
def test_addresses_are_no_words(text: str, words: str) -> None:
    assert words_of(text).every == words_of(text).own == words


def test_an_address_that_spells_a_reply_can_not_stop_the_relay() -> None:
    for local in ('"MI:SFQ"', '"blocked using"', '"User suspended"', "sending.quota", '"too many connections"'):
        for text in (f"<{local}@x.example>: rejected", f"5.1.1 <{local}@x.example> user unknown"):
            verdict = judge_reply(POLICIES["163"], Phase.RCPT, make_reply(550, [text]))
            assert verdict.scope is Scope.RECIPIENT, text


QUOTED = st.sampled_from([example.text[4:].replace("\\n", " ") for example in EXAMPLES])


@given(
    QUOTED,
    st.sampled_from([421, 450, 454, 550, 554]),
    st.sampled_from(["", ".7.1", ".1.1", ".4.4"]),
    st.sampled_from(PRESETS),
)
def test_what_a_recipients_own_host_says_stops_no_relay(text: str, code: int, subject: str, preset: str) -> None:
    enhanced = f"{code // 100}{subject}" if subject else ""
    words = (
        f"{enhanced} <a@b.example>: Recipient address rejected: undeliverable address: host mx.b.example said: {text}"
    )
    verdict = judge_reply(POLICIES[preset], Phase.RCPT, make_reply(code, [words.lstrip()]))
    assert verdict.scope is not Scope.RELAY
    assert not verdict.pauses
    assert verdict.learn is None


@given(TEXTS, st.sampled_from([450, 550, 554]), st.sampled_from(["1.0", "1.1", "1.2", "1.6", "1.10"]))
def test_a_code_that_blames_the_address_outweighs_all_words_about_the_relay(text: str, code: int, detail: str) -> None:
    for policy in POLICIES.values():
        verdict = judge_reply(policy, Phase.RCPT, make_reply(code, [f"{code // 100}.{detail} {text}"]))
        assert verdict.scope is not Scope.RELAY
        assert not verdict.pauses


def test_ones_own_row_may_name_a_code_that_blames_the_address() -> None:
    row = {"name": "a", "enhanced": ["5.1.1"], "scope": "relay", "action": "CONFIG", "pause": ["1h"]}
    policy = policy_for("", parse_rules([row], "test"))
    assert judge_reply(policy, Phase.RCPT, make_reply(550, ["5.1.1 nobody"])).kind == "a"


def test_dots_are_literal() -> None:
    """`165.1.1.9` is no `5.1.1`, and an enhanced code counts only right after the code."""
    for text in ("5.7.1 blocked client [165.1.1.9]", "refused (#5.1.1)", "x5.1.1 nobody", "5.1.11 odd", "5.1.1.9 odd"):
        assert not judge_reply(POLICIES[""], Phase.RCPT, make_reply(550, [text])).suppress, text


@pytest.mark.parametrize("phase", Phase)
def test_every_failure_in_every_phase_leads_out_of_sending(phase: Phase) -> None:
    for failure in Failure:
        verdict = judge_failure(phase, failure)
        apply(State.SENDING, verdict.event)
        assert (verdict.event is Event.IN_DOUBT) == (phase is Phase.DOT), failure


@pytest.mark.parametrize("phase", sorted(BEFORE_MAIL))
def test_what_goes_wrong_before_mail_from_charges_the_message_nothing(phase: Phase) -> None:
    for failure in (Failure.DNS, Failure.REFUSED, Failure.TIMEOUT, Failure.LOST, Failure.TLS, Failure.CAPABILITY):
        verdict = judge_failure(phase, failure)
        assert not verdict.charged
        assert verdict.scope is Scope.RELAY
        assert verdict.pauses


def test_the_qq_rows_hold_for_qq_only() -> None:
    reply = make_reply(550, ["Mailbox unavailable or access denied"])
    kinds = Counter(judge_reply(POLICIES[preset], Phase.RCPT, reply).kind for preset in PRESETS)
    assert kinds["recipient-flooded"] == 2


def test_what_a_relay_does_not_offer_is_no_fault_of_the_message_until_no_relay_is_left() -> None:
    verdict = judge_failure(Phase.MAIL, Failure.CAPABILITY)
    assert (verdict.event, verdict.kind, verdict.action, verdict.charged, verdict.alert) == (
        Event.NOT_STARTED, "not-offered", Action.ELSEWHERE, False, 0,
    )  # fmt: skip
    last = no_relay_left(verdict)
    assert (last.event, last.kind, last.action, last.charged, last.alert) == (
        Event.FAULT, "no-relay", Action.FAILED, True, 1,
    )  # fmt: skip
    assert no_relay_left(last) == last


@pytest.mark.parametrize("text", ["552 5.3.4 Message size exceeds fixed limit", "552 message too big", "523 too large"])
def test_a_size_is_asked_of_another_relay_at_mail_only(text: str) -> None:
    reply = make_reply(int(text[:3]), [text[4:]])
    verdict = judge_reply(POLICIES[""], Phase.MAIL, reply)
    assert (verdict.event, verdict.action, verdict.charged, verdict.kind) == (
        Event.DEFER, Action.ELSEWHERE, False, "too-big",
    )  # fmt: skip
    last = no_relay_left(verdict)
    assert (last.event, last.action, last.charged, last.kind) == (Event.REFUSED, Action.PERM, True, "too-big")
    for phase in (Phase.RCPT, Phase.DATA, Phase.DOT):
        assert judge_reply(POLICIES[""], phase, reply) == last


@given(st.sampled_from(list(Phase)), st.integers(400, 599), TEXTS, st.sampled_from(PRESETS))
def test_only_a_refusal_of_mail_sends_a_message_elsewhere(phase: Phase, code: int, text: str, preset: str) -> None:
    verdict = judge_reply(POLICIES[preset], phase, make_reply(code, [text]))
    if verdict.action is Action.ELSEWHERE:
        assert phase is Phase.MAIL
        assert code >= 500
        assert not verdict.charged


@pytest.mark.parametrize(
    ("code", "text", "wait"),
    [
        (450, "4.7.1 <a@b.example>: Recipient address rejected: Greylisted, try again in 300 seconds", 300),
        (450, "4.7.1 <a@b.example>: Recipient address rejected: Greylisted", 0),
        (451, "4.7.1 Greylisted, come back in 99999 minutes", 4 * 3600),
        (452, "4.2.1 <a@b.example>: daily message limit of this mailbox, try again in 1 hour", 3600),
        (452, "4.2.1 <a@b.example>: daily message limit of this mailbox, try again in 10 seconds", 600),
        (450, "4.2.0 please try again in 90 seconds", 90),
    ],
)
def test_the_wait_that_the_words_give_counts_within_bounds(code: int, text: str, wait: float) -> None:
    verdict = judge_reply(POLICIES[""], Phase.RCPT, make_reply(code, [text]))
    assert (verdict.action, verdict.scope, verdict.wait) == (Action.TEMP, Scope.RECIPIENT, wait)


@pytest.mark.parametrize("code", [450, 451, 421])
def test_greylisting_of_one_recipient_rests_no_relay_whatever_else_is_said(code: int) -> None:
    for words in ("", ", too many messages", ", rate limit", ", too many connections", ": Client host rejected"):
        for phase in (Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT):
            verdict = judge_reply(POLICIES[""], phase, make_reply(code, [f"4.7.0 Greylisted{words}"]))
            assert verdict.action is Action.TEMP, (phase, words)
