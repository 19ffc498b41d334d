"""No text of a peer shows what was sent for a login, in none of the forms in which it was sent."""

from base64 import b64encode
from hashlib import sha256

import pytest

from service.relay.hidden import Hidden, forms_of

USER, SECRET = "me@163.example", "QWERTYUIOPASDFGH"  # as long as an authorization code
TOKEN = "ya29." + "".join(f"{n:04x}" for n in range(300))


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def hiding(secret: str = SECRET, user: str = USER) -> Hidden:
    hidden = Hidden()
    hidden.add(*forms_of(user, secret))
    return hidden


@pytest.mark.parametrize("secret", [SECRET, TOKEN, "p w-1", "密码密码"])
@pytest.mark.parametrize("pieces", [True, False])
def test_every_form_of_a_login_is_taken_out_of_any_reply(secret: str, pieces: bool) -> None:
    hidden = hiding(secret)
    forms = [
        secret,
        encoded(secret),
        encoded(f"\0{USER}\0{secret}"),
        encoded(f"user={USER}\x01auth=Bearer {secret}\x01\x01"),
        encoded(f"n,a={USER},\x01auth=Bearer {secret}\x01\x01"),
    ]
    for form in forms:
        told = hidden.take_out(f"5.7.8 rejected: {form.rstrip('=')} (try again)", pieces=pieces)
        assert told == "5.7.8 rejected: [redacted] (try again)"


@pytest.mark.parametrize("form", [TOKEN, encoded(f"user={USER}\x01auth=Bearer {TOKEN}\x01\x01")])
def test_what_is_cut_or_broken_into_lines_is_taken_out_too(form: str) -> None:
    hidden = hiding(TOKEN)
    lines = [form[at : at + 70] for at in range(0, len(form), 70)]
    told = [hidden.take_out(f"AUTH line <{line}") for line in lines]
    assert told == ["AUTH line [redacted]"] * len(lines)


def test_usual_replies_are_left_as_they_are() -> None:
    hidden = hiding()
    for text in (
        "Mail OK queued as smtp3,DcmowABnL9sYxxxxxx_1234--.123S2 1764000000",
        "<somebody.with.a.long.name@example.org>: Recipient address rejected: https://example.org/help?subtype=1",
        "QWERTYUIOPA is no longer piece of it",
    ):
        assert hidden.take_out(text) == text


def test_what_is_too_short_to_be_secret_garbles_no_reply() -> None:
    assert hiding("the").take_out("the mailbox is full") == "the mailbox is full"
    assert hiding("").take_out("ok") == "ok"


def test_tokens_that_follow_each_other_are_all_hidden_for_a_while_and_no_number_of_them_is_kept() -> None:
    hidden = hiding()
    tokens = [sha256(b"%d" % number).hexdigest() for number in range(100)]
    for token in tokens:
        hidden.add(*forms_of(USER, token))
    assert hidden.take_out(f"{tokens[-1]} {tokens[-2]}") == "[redacted] [redacted]"
    assert hidden.take_out(tokens[0]) == tokens[0]
    hidden.add(*forms_of(USER, SECRET))
    assert hidden.take_out(SECRET) == "[redacted]", "what is sent again is new again"
