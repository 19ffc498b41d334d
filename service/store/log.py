"""What the delivery log and the suppression list say of a settled recipient. Pure."""

from typing import Any

from pydantic_core import to_json

from service.store.values import RecipientSettlement, Settlement


def timings_of(settlement: Settlement) -> dict[str, float]:
    """Milliseconds by phase."""
    return {phase: round(ms, 2) for phase, ms in settlement.timings.items()}


def timings_text(settlement: Settlement) -> str:
    """The same, as it is kept with the attempt."""
    return to_json(timings_of(settlement)).decode()


def event_text(data: Any) -> str | None:
    """The data of a line of the log, as it is kept."""
    return to_json(data).decode() if data else None


def event_data(settlement: Settlement, relay: str, each: RecipientSettlement) -> dict[str, Any]:
    """What a line of the log says about one recipient's share of an attempt."""
    data: dict[str, Any] = {"relay": relay, "class": each.kind, "phase": each.phase, "charged": each.charged}
    if each.scope:
        data["scope"] = each.scope
    if each.action:
        data["action"] = each.action
    if each.relay_until is not None:
        data["relay_paused_until"] = each.relay_until
    if each.code is not None:
        data["code"] = each.code
    if each.enhanced:
        data["enhanced_code"] = each.enhanced
    if each.text:
        data["text"] = each.text
    if each.due_at is not None:
        data["next_attempt_at"] = each.due_at
    if settlement.session:
        data["session"] = settlement.session
    if settlement.timings:
        data["timings_ms"] = timings_of(settlement)
    if settlement.signed_by:
        data["dkim"] = settlement.signed_by
    if each.suppress:
        data["suppressed"] = each.suppress
    return data


def left_out_data(settlement: Settlement, relay: str) -> dict[str, Any] | None:
    """What one line of the log says about all recipients that an attempt left for the next; None: there are none."""
    left = [each for each in settlement.recipients if each.left_out]
    if not left:
        return None
    return {"relay": relay, "class": left[0].kind, "charged": False, "left_out": len(left), "text": left[0].text}


def suppression_detail(each: RecipientSettlement) -> str:
    """The reply that led to a suppression."""
    return " ".join(part for part in (str(each.code or ""), each.enhanced, each.text) if part)
