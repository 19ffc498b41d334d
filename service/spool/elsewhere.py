"""A relay can't carry a message and said so before the content: may another one, or is this the end of it?

The relay is noted in the route of what is left of the message (mail/route), which is stored: whichever process claims it
next asks another relay. When none is left the message ends, and each relay's reason is told. Which replies lead here
is mail/outcome's; which relays a route may take is the router's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.errors import PostroomError
from service.mail.lifecycle import Event
from service.mail.limits import offers
from service.mail.outcome import Action, Verdict, no_relay_left
from service.mail.reply import MAX_TEXT
from service.mail.route import Route, refused_by
from service.mail.seal import SenderRule, takes_sender
from service.relay.port import Relays
from service.store.port import Store
from service.store.values import Delivery, RecipientSettlement, Settlement

_ENDS = (Event.REFUSED, Event.FAULT)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What follows for each recipient."""

    verdicts: Sequence[Verdict]
    route: str | None = None  # by which the message goes from here on, where that is another one
    ended: bool = False  # no relay was left


class Elsewhere:
    """Of one dispatcher."""

    def __init__(self, relays: Relays, store: Store) -> None:
        self._relays, self._store = relays, store

    def resolve(self, delivery: Delivery, verdicts: Sequence[Verdict]) -> Resolved:
        """Send the message by another relay where a verdict asks for that, or end it."""
        if all(verdict.action is not Action.ELSEWHERE for verdict in verdicts):
            return Resolved(verdicts)
        route = Route.parse(delivery.route).without(delivery.relay)
        if self._others(delivery, route):
            return Resolved(verdicts, route.key)
        # as it was accepted: an operator who has mended a relay may have it tried again
        return Resolved([no_relay_left(verdict) for verdict in verdicts], route.as_accepted().key, ended=True)

    def _others(self, delivery: Delivery, route: Route) -> list[str]:
        """The relays that may carry it and were not found unable to."""
        candidates = self._relays.candidates(route.sender, route.relay or None, route.needs)
        return [
            relay.name
            for relay in candidates
            if relay.name not in route.unfit and takes_sender(delivery.envelope_from, delivery.from_email, relay.rule)
        ]

    def turned(self, delivery: Delivery) -> str | None:
        """The route of a message that the relay may not carry, which took it by a route that tells no sender: since it was
        accepted a relay has come to mind that. None: it may.
        """
        route = Route.parse(delivery.route)
        if route.sender or not self._relays.sender_decides():
            return None
        candidates = self._relays.candidates(delivery.from_email, route.relay or None, route.needs)
        if any(relay.name == delivery.relay for relay in candidates):
            return None
        return replace(route, sender=delivery.from_email).key

    def refused_envelope(self, delivery: Delivery, rule: SenderRule) -> str | None:
        """The route of a message whose envelope's sender the rule refuses, so that it is asked for no relay with such a rule.

        None: From is refused, which the router knows by itself.
        """
        if not takes_sender(delivery.from_email, delivery.from_email, rule):
            return None
        return Route.parse(delivery.route).with_envelope(delivery.envelope_from).key

    async def told(self, delivery: Delivery, settlement: Settlement) -> Settlement:
        """The settlement of a message that ends here, with each relay's reason in its words."""
        route = Route.parse(delivery.route)
        try:
            lines = await self._store.list_events(delivery.account, delivery.id)
        except PostroomError:  # the message must end although its log can't be read
            lines = []
        earlier = {
            line.data["relay"]: _words(line.data)
            for line in lines
            if line.data.get("action") == Action.ELSEWHERE and line.data.get("relay") in route.unfit
        }
        others = {} if route.relay else self._reasons(delivery, route)
        return replace(
            settlement,
            recipients=[
                _with_reasons(each, {**earlier, delivery.relay: _words(_data_of(each)), **others})
                if each.event in _ENDS
                else each
                for each in settlement.recipients
            ],
        )

    def _reasons(self, delivery: Delivery, route: Route) -> dict[str, str]:
        """Why the relays were not asked that were not."""
        asked = {*route.unfit, delivery.relay}
        return {name: self._reason(name, delivery, route) for name in self._relays.names() if name not in asked}

    def _reason(self, name: str, delivery: Delivery, route: Route) -> str:
        relay = self._relays.get(name)
        if refused_by(route.needs, name):
            return "could not take it when it was accepted"
        if not takes_sender(delivery.from_email, delivery.from_email, relay.rule):
            return f"may not carry mail from {delivery.from_email}"
        if not takes_sender(delivery.envelope_from, delivery.from_email, relay.rule):
            return f"may not carry mail with the envelope_from {delivery.envelope_from}"
        if lacking := [word for word in route.needs if not (relay.limits.take(word) and offers(relay.offer, word))]:
            return f"does not take what it needs ({', '.join(lacking)})"
        return f"may not carry mail from {delivery.from_email}"


def _data_of(each: RecipientSettlement) -> dict[str, Any]:
    return {"code": each.code, "enhanced_code": each.enhanced, "text": each.text}


def _words(data: Mapping[str, Any]) -> str:
    """A relay's reason as a line of the delivery log has it."""
    return " ".join(str(data[key]) for key in ("code", "enhanced_code", "text") if data.get(key))


def _with_reasons(each: RecipientSettlement, reasons: Mapping[str, str]) -> RecipientSettlement:
    told = "; ".join(f"{relay}: {reason}" for relay, reason in reasons.items())
    return replace(each, text=f"no relay can carry this message: {told}"[:MAX_TEXT])
