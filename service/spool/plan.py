"""Which relays may carry a message, and what keeps the others from it: decided before the 202.

Each relay makes a trial seal and is asked whether it takes what the message needs (mail/limits). One must agree; else the
request learns of every relay why not, at the field that would have to change. What was found goes into the route, by
which spool/dispatch picks relays later: nothing is judged twice, and nothing here sends.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from service.errors import FieldProblem, NoRelayForMessage, SenderNotAccepted
from service.mail.compose import Composed, Notice
from service.mail.dkim import SIGNATURE_ROOM
from service.mail.dkim_keys import DkimRing
from service.mail.draft import Draft
from service.mail.limits import Need, largest_field, needs_of, offers
from service.mail.route import Route, ordered
from service.mail.seal import Sealed, seal, signers
from service.relay.port import Relay, Relays
from service.relay.presets import risky_extensions
from service.spool.values import RelayPlan, RelayRefusal, Submission

NOT_LISTED = "sender_not_listed"
_SAID = 5  # reasons in a sentence


@dataclass(slots=True)  # not frozen: one is made for each message
class Plan:
    """What was found."""

    found: Sequence[tuple[str, RelayPlan]]  # the relays that may carry it, best priority first; equal ones share a plan
    refusals: tuple[RelayRefusal, ...]  # of the others that were asked
    words: tuple[str, ...]  # of the message's needs
    notices: tuple[Notice, ...] = ()

    @property
    def able(self) -> list[RelayPlan]:
        """The relays that may carry it, best priority first."""
        return [replace(answer, relay=name) for name, answer in self.found]

    def route(self, account: str, submission: Submission, *, sender_decides: bool) -> Route:
        """The route of the message: its needs, and the relays whose refusal those don't tell."""
        sender = submission.from_.email if sender_decides else ""
        unsaid = tuple([each.relay for each in self.refusals if each.exact])
        return _route(account, submission.relay or "", sender, self.words, unsaid)


@lru_cache(maxsize=1024)  # most messages of an account go by one
def _route(account: str, relay: str, sender: str, words: tuple[str, ...], unsaid: tuple[str, ...]) -> Route:
    return Route(account, relay, sender, ordered(words, unsaid))


@dataclass(slots=True)  # not frozen: one is made for each message
class _Asking:
    """What each relay is asked about."""

    submission: Submission
    composed: Composed
    draft: Draft
    needs: Sequence[Need]
    recipients: int
    ring: DkimRing


def plan(
    relays: Relays, ring: DkimRing, submission: Submission, composed: Composed, draft: Draft, recipients: int
) -> Plan:
    """Ask every relay, or the one that is named. recipients: forward-paths that are to be served.

    Raises RelayNotFound, SenderNotAccepted (all that may carry the sender demand another one), NoRelayForMessage.
    """
    risky = _risky(relays) if draft.attachments or draft.calendar else ()
    needs = needs_of(draft, composed.size, recipients, risky, smtputf8=composed.smtputf8)
    asking = _Asking(submission, composed, draft, needs, recipients, ring)
    listed = relays.carriers(draft.from_.email, submission.relay)
    found, refusals = _ask_all(listed, asking)
    asked = {relay.name for relay in listed}
    # of a name that no relay has `get` raises RelayNotFound with a "did you mean"
    names = relays.names() if submission.relay is None else (submission.relay,)
    refusals += [_ask_other(relays.get(name), asking) for name in names if name not in asked]
    if not found:
        raise _refusal(refusals, draft.from_.email)
    words = tuple([each.word for each in needs])
    return Plan(found, tuple(refusals), words, tuple([_unsigned(name) for name, answer in found if answer.gap]))


def _risky(relays: Relays) -> frozenset[str]:
    """Extensions that any provider that is known, or any relay that is configured, forbids."""
    own = [relays.get(name).limits.forbidden_extensions for name in relays.names()]
    return risky_extensions().union(*own)


def _ask_all(relays: Sequence[Relay], asking: _Asking) -> tuple[list[tuple[str, RelayPlan]], list[RelayRefusal]]:
    """One relay of a kind that says yes speaks for all of them; a refusal names its relay, so each makes its own."""
    agreed: dict[object, RelayPlan] = {}
    found: list[tuple[str, RelayPlan]] = []
    refusals: list[RelayRefusal] = []
    for relay in relays:
        answer = agreed.get(kind := relay.kind) or _ask(relay, asking)
        if isinstance(answer, RelayPlan):
            agreed[kind] = answer
            found.append((relay.name, answer))
        else:
            refusals.append(answer)
    return found, refusals


def _ask(relay: Relay, asking: _Asking) -> RelayPlan | RelayRefusal:
    try:
        sealed = _trial(relay, asking)
    except SenderNotAccepted as fault:  # of the envelope: by From the router would choose it
        return RelayRefusal(relay.name, tuple(fault.errors), exact=True)
    keys = signers(asking.ring, sealed.header_from, relay.rule, asking.draft.date)
    problems, exact = _faults(relay, asking, asking.composed.size + len(keys) * SIGNATURE_ROOM)
    if problems:
        return RelayRefusal(relay.name, tuple(problems), exact)
    gap = not keys and relay.rule.dkim and asking.ring.knows(sealed.header_from)
    return RelayPlan(relay.name, sealed.envelope_from, sealed.rewritten, keys, gap)


def _ask_other(relay: Relay, asking: _Asking) -> RelayRefusal:
    """One that the router leaves out: its sender rule, or its `from`, is why."""
    try:
        _trial(relay, asking)
    except SenderNotAccepted as fault:
        return RelayRefusal(relay.name, tuple(fault.errors))
    detail = f"relay {relay.name} may not carry mail from {asking.draft.from_.email} (its `from`)"
    return RelayRefusal(relay.name, (FieldProblem("#/from", NOT_LISTED, detail),))


def _trial(relay: Relay, asking: _Asking) -> Sealed:
    from_ = asking.draft.from_.email
    return seal(asking.composed.segments, asking.submission.envelope_from or from_, from_, relay.rule)


def _faults(relay: Relay, asking: _Asking, size: int) -> tuple[list[FieldProblem], bool]:
    """Every reason against it, and whether one of them is not told by the words of the needs."""
    against = [need for need in asking.needs if not (relay.limits.take(need.word) and offers(relay.offer, need.word))]
    problems = [_problem(relay, need, asking) for need in against if need.code not in _COUNTED]
    exact = False
    if relay.max_size is not None and size > relay.max_size:
        words = f"takes at most {relay.max_size} octets, the message has {size}"
        need = Need("", largest_field(asking.draft), "too_large", words)
        problems.append(_problem(relay, need, asking))
        exact = not any(need.code == "too_large" for need in against)
    most = relay.limits.max_message_recipients
    if most is not None and asking.recipients > most:
        words = f"takes at most {most} recipients, the message has {asking.recipients}"
        problems.append(_problem(relay, Need("", "#/to", "too_many_recipients", words), asking))
        exact = exact or not any(need.code == "too_many_recipients" for need in against)
    return problems, exact


_COUNTED = {"too_large", "too_many_recipients"}  # told with the figures instead


def _problem(relay: Relay, need: Need, asking: _Asking) -> FieldProblem:
    pointer = _in_request(need.pointer, asking.submission)
    return FieldProblem(pointer, need.code, f"relay {relay.name} {need.refusal}")


def _in_request(pointer: str, submission: Submission) -> str:
    """Where the request says what the draft has there: a template makes html, and html holds embedded images."""
    if pointer.startswith("#/attachments/") and int(pointer.split("/")[2]) >= len(submission.attachments):
        pointer = "#/html"
    return "#/template" if submission.template is not None and pointer in {"#/html", "#/text"} else pointer


def _refusal(refusals: Sequence[RelayRefusal], sender: str) -> NoRelayForMessage | SenderNotAccepted:
    problems = [problem for each in refusals for problem in each.problems]
    about = [each for each in problems if each.code != NOT_LISTED]
    if about and all(each.code == SenderNotAccepted.code for each in about):
        return SenderNotAccepted(_sentence(about), errors=problems)
    if not about:
        detail = f"no configured relay may carry mail from {sender}"
        return NoRelayForMessage(detail, errors=problems or [FieldProblem("#/from", NoRelayForMessage.code, detail)])
    return NoRelayForMessage(_sentence(problems), errors=problems)


def _sentence(problems: Iterable[FieldProblem]) -> str:
    """The first few; `errors` has all."""
    details = list(dict.fromkeys(each.detail for each in problems))
    more = [f"and {len(details) - _SAID} more"] if len(details) > _SAID else []
    return "; ".join(details[:_SAID] + more)


def _unsigned(relay: str) -> Notice:
    detail = f"by relay {relay} it goes unsigned: no key of POSTROOM_DKIM_FILE is valid at its date"
    return Notice("#/from", "no_dkim_key", detail)
