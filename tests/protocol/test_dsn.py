"""DSN (RFC 3461): what is asked of later relays stands in the envelope, and only where the relay offers it."""

import pytest

from service.mail.envelope import Dsn, Envelope, original_recipient, xtext
from service.relay.commands import mail_command, rcpt_commands
from service.relay.port import Outgoing
from tests.support.relaying import BODY, SENT, codes, run
from tests.support.smtp_script import Peer

ASKED = Dsn(("failure", "delay"), whole=False, id="msg_01")


def _envelope(dsn: Dsn | None, *paths: str, smtputf8: bool = False) -> Envelope:
    return Envelope("me@example.com", paths or ("a+b@b.example",), 21, smtputf8, dsn)


async def test_the_parameters_are_on_the_wire_in_one_group_with_the_rest() -> None:
    async def script(peer: Peer) -> None:
        await peer.hello(b"PIPELINING", b"SIZE 1000000", b"DSN")
        await peer.expect(
            b"MAIL FROM:<me@example.com> SIZE=21 RET=HDRS ENVID=msg_01\r\n"
            b"RCPT TO:<a+b@b.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;a+2Bb@b.example\r\n"
            b"DATA\r\n"
        )
        await peer.say(b"250 ok", b"250 ok", b"354 go")
        await peer.content()
        await peer.say(b"250 taken")

    report, _ = await run(script, Outgoing(1, _envelope(ASKED), BODY))
    assert codes(report) == SENT


def test_a_relay_that_does_not_offer_it_hears_nothing_of_it() -> None:
    assert mail_command(_envelope(ASKED), {"size": ""}) == b"MAIL FROM:<me@example.com> SIZE=21\r\n"
    assert list(rcpt_commands(_envelope(ASKED), {"size": ""})) == [b"RCPT TO:<a+b@b.example>\r\n"]


@pytest.mark.parametrize(
    ("dsn", "mail", "rcpt"),
    [
        (None, b"", b""),
        (Dsn(("never",)), b"", b" NOTIFY=NEVER ORCPT=rfc822;a@b.example"),
        (Dsn(whole=True), b" RET=FULL", b" ORCPT=rfc822;a@b.example"),
        (Dsn(("success",), id="a+b =\x7f"), b" ENVID=a+2Bb+20+3D+7F", b" NOTIFY=SUCCESS ORCPT=rfc822;a@b.example"),
    ],
)
def test_only_what_is_asked_for_is_said(dsn: Dsn | None, mail: bytes, rcpt: bytes) -> None:
    envelope = _envelope(dsn, "a@b.example")
    assert mail_command(envelope, {"dsn": ""}) == b"MAIL FROM:<me@example.com>" + mail + b"\r\n"
    assert list(rcpt_commands(envelope, {"dsn": ""})) == [b"RCPT TO:<a@b.example>" + rcpt + b"\r\n"]


def test_xtext_has_no_octet_that_could_end_a_parameter() -> None:
    every = "".join(map(chr, range(0x180)))
    assert all(0x21 <= ord(each) <= 0x7E and each != "=" for each in xtext(every))


def test_an_address_that_is_not_ascii_is_named_as_rfc_6533_says() -> None:
    assert original_recipient("用户+x=\\@例子.example") == r"utf-8;用户\x{2B}x\x{3D}\x{5C}@例子.example"
