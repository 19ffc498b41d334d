"""The name by which a relay knows a message, in the replies of many."""

import time
from pathlib import Path

import pytest

from service.mail.reply import MAX_TEXT, make_reply
from service.mail.reply_id import FORMS, id_in
from service.redaction import REDACTED

ROWS = [
    line.split("\t")
    for line in Path(__file__).with_name("reply_ids.tsv").read_text().splitlines()
    if not line.startswith("#")
]


def text_of(reply: str) -> str:
    """As a session has it: without codes, and the lines, which `\\n` divides, joined."""
    return make_reply(int(reply[:3]), [line[4:] for line in reply.split("\\n")]).text


@pytest.mark.parametrize(("name", "form", "who", "reply"), ROWS, ids=[f"{row[2]}: {row[3][:40]}" for row in ROWS])
def test_the_name_is_found_where_there_is_one_and_no_word_is_taken_for_one(
    name: str, form: str, who: str, reply: str
) -> None:
    assert id_in(text_of(reply)) == (None if name == "-" else name), who
    if name != "-":
        first = next(each for each in FORMS if each.pattern.search(text_of(reply)))
        assert first.who.startswith(form), "a form before it matches as well"


def test_each_form_has_a_reply_and_a_third_of_all_replies_has_no_name() -> None:
    assert len(ROWS) >= 40
    assert sum(row[0] == "-" for row in ROWS) * 3 >= len(ROWS)
    seen = {row[1] for row in ROWS}
    assert [form.who for form in FORMS if not any(form.who.startswith(word) for word in seen)] == []


def test_a_reply_of_several_lines_is_read_as_one() -> None:
    reply = make_reply(250, ["2.0.0 thank you", "2.0.0 Ok: queued as 4WxyZ0abcd"])
    assert id_in(reply.text) == "4WxyZ0abcd"


@pytest.mark.parametrize(
    "text",
    [
        f"Ok: queued as {REDACTED}",
        f"Ok: queued as 4Wxy{REDACTED}",
        f"Ok: queued as <1.{REDACTED}@relay.example>",
        f"OK <{REDACTED}@a.example> [Hostname=b.example]",
        f"OK id={REDACTED}-000Dv-Lf",
    ],
)
def test_a_name_that_a_secret_was_taken_out_of_is_none(text: str) -> None:
    assert id_in(text) is None


def test_a_name_that_is_too_long_or_was_cut_with_its_reply_is_none_rather_than_half_of_one() -> None:
    assert id_in(f"Ok: queued as {'a1' * 100}") == "a1" * 100
    assert id_in(f"Ok: queued as {'a1' * 101}") is None
    reply = make_reply(250, [f"{'x' * (MAX_TEXT - 20)} queued as 4WxyZ0abcdefgh"])
    assert len(reply.text) == MAX_TEXT
    assert id_in(reply.text) is None


@pytest.mark.parametrize(
    "piece",
    [
        "queued as ", "queued on a ", "queued as <", "queued as freedom ###envid=", "ok 1700000000 ", "completed: id=",
        "<a> ", "<", "a", "a-", "1", "ok <", "ok id=", "queued on ", " ", "queued as a", "ok:  message 1",
    ],
)  # fmt: skip
def test_no_reply_makes_the_search_long(piece: str) -> None:
    """Twice the text takes about twice the time, of the best of many: else it would take four times as long."""
    short, long = (piece * (size // len(piece) + 1) for size in (1000, 32_000))

    def best(text: str) -> float:
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            id_in(text[: len(text)])
            taken.append(time.perf_counter() - began)
        return min(taken)

    assert best(long) < best(short) * 32 * 8 + 0.001, piece
