"""What counts as the content of a message: everything that was handed in, in octets."""

from typing import Any

import pytest

from service.errors import PayloadTooLarge
from service.mail.address import parse_mailbox
from service.mail.draft import Alternative, Attachment, Calendar
from service.spool.content import check_content
from service.spool.values import Submission

NINE = "12345六2"  # octets in UTF-8, of seven characters


@pytest.mark.parametrize(
    "given",
    [
        {"text": NINE},
        {"html": NINE},
        {"amp": NINE},
        {"alternatives": (Alternative("text/markdown", NINE[:5]), Alternative("text/csv", NINE[5:]))},
        {"calendar": Calendar("REQUEST", NINE, "invite.ics")},
        {"attachments": (Attachment("a.bin", b"12345"), Attachment("b.bin", b"6789"))},
        {"text": NINE[:5], "html": NINE[5:]},
    ],
    ids=lambda given: "+".join(given),
)
def test_every_part_counts_and_what_is_allowed_is_allowed_to_the_octet(given: dict[str, Any]) -> None:
    submission = Submission(from_=parse_mailbox("a@x.example", "#/from"), **given)
    check_content(submission, 9)
    with pytest.raises(PayloadTooLarge, match=r"has 9 octets; at most 8 \(POSTROOM_MAX_MESSAGE_BYTES\)"):
        check_content(submission, 8)
