"""What the end-to-end benchmark counts by: its messages, its sink, and how accepted and arrived are compared."""

import base64
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.rivals import generator, picture, report, work
from bench.rivals.__main__ import parsed, variants
from bench.rivals.install import NotInstalled
from bench.rivals.postroom import Postroom
from bench.rivals.sink import Sink, number_of, whole
from bench.rivals.turns import Record, Rounds, Turn, settle
from bench.rivals.work import Variant
from service.mail.render import compile_template
from service.mail.template import parse_files
from tests.support.tls import TestAuthority

NONE = float("nan")
HEADERS = 700  # octets of the header and of what stands around the parts, about


def result(*accepted: str) -> generator.Result:
    return generator.Result(100.0, 1.0, list(accepted), {}, NONE, NONE, NONE, 0.1)


def state(copies: int) -> dict[str, float]:
    return {"copies": copies, "nameless": 0, "octets": 4000 * copies, "cpu": 0.2, "last": 102.0}


# --- accepted and arrived -------------------------------------------------------------------------------------------


def test_a_rate_counts_what_was_accepted_and_arrived_by_the_time_to_the_last_copy() -> None:
    turn = settle(result("a", "b"), 2, state(2), ["b", "a"], 0)
    assert (turn.rate, turn.octets, turn.sink_share, turn.faults) == (1.0, 4000, 0.1, "")


def test_what_is_lost_doubled_stray_cut_or_refused_is_said() -> None:
    turn = settle(result("a", "b", "c"), 5, state(4), ["a", "a", "a", "other"], 1)
    assert turn.faults == "2 lost, 2 doubled, 1 stray, 1 cut, 2 refused"
    assert turn.rate == 0.5, "a copy that came three times is one message"


def test_a_ratio_is_ours_by_the_others_and_a_missing_rival_has_none() -> None:
    ours, other, absent, broken = (Record(Postroom()) for _ in range(4))
    ours.turns, other.turns = [_turn(300.0)], [_turn(100.0), _turn(200.0), _turn(900.0)]
    absent.missing, broken.turns = "not installed", [_turn(0.0)]
    assert [report.ratio(ours, each) for each in (ours, other, absent, broken)] == ["", "1.50", "", ""]
    rows = report.rows([ours, other, absent])
    assert absent.faults == [], "who is not installed does not fail the run"
    assert rows[1][1] == "200 (100-900)"
    assert rows[2][1] == "does not take part: not installed"


def _turn(rate: float) -> Turn:
    return Turn(rate, rate, 1.0, 2.0, 3.0, 4000.0, 0.1, 0.1)


# --- the message ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", work.SIZES)
def test_the_template_renders_to_about_its_size_with_a_mark_in_each_part(tmp_path: Path, size: int) -> None:
    work.write_postroom_template(tmp_path, size)
    files = {path.name: path.read_text() for path in (tmp_path / work.TEMPLATE).iterdir()}
    template = compile_template(parse_files(work.TEMPLATE, files))
    made = template.render(template.sample(None), None, deadline=1.0, monotonic=lambda: 0.0, max_bytes=1_000_000)
    assert made.html is not None
    assert made.text is not None
    assert work.MARK in made.html
    assert work.MARK in made.text
    octets = len(made.html) + len(made.text) + HEADERS
    assert octets == pytest.approx(size * 1024, rel=0.15)


def test_the_template_for_handlebars_has_no_words_of_jinja_left() -> None:
    for source in (work.html_source(4), work.text_source(4)):
        assert "{%" not in (written := work.handlebars(source))
        assert "{{#each lines}}" in written
        assert "{{ line }}" not in written


def test_a_prebuilt_message_is_whole() -> None:
    assert whole(work.prebuilt(4).replace("\n", "\r\n").encode())


def test_a_kind_of_request_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="kind: 'other'"):
        work.body("other", "r", range(1))


def test_a_batch_asks_for_each_of_its_messages_once() -> None:
    asked = work.body("postroom-batch", "r", range(50, 53))
    assert [each["headers"][work.ID_FIELD] for each in asked["messages"]] == ["r-50", "r-51", "r-52"]


# --- the sink -------------------------------------------------------------------------------------------------------


class Session:
    """One command after the other."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 20)
        self._answers = self._socket.makefile("rb")
        assert self._answers.readline() == b"220 sink\r\n"

    def say(self, octets: bytes, replies: int = 1) -> list[bytes]:
        """The first three octets of each reply."""
        self._socket.sendall(octets)
        return [self._answers.readline()[:3] for _ in range(replies)]

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink() as started:
        yield started


@pytest.fixture
def session(sink: Sink) -> Iterator[Session]:
    sink.reset()
    opened = Session(sink.port)
    yield opened
    opened.close()


def letter(identifier: str, text: str, html: str, encoding: str = "7bit") -> bytes:
    parts = [
        f"--p\r\nContent-Type: text/{kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{body}\r\n"
        for kind, body in (("plain", text), ("html", html))
    ]
    head = f"X-Bench-Id: {identifier}\r\nContent-Type: multipart/alternative; boundary=p\r\n\r\n"
    return (head + "".join(parts) + "--p--\r\n").encode()


GROUP = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<7user@example.org>\r\nDATA\r\n"
WHOLE = letter("run-1", work.MARK, f"<p>{work.MARK}</p>")


def test_the_sink_takes_pipelined_content_by_its_id(sink: Sink, session: Session) -> None:
    following = WHOLE.replace(b"run-1", b"run-2")
    assert session.say(GROUP, 3) == [b"250", b"250", b"354"]
    assert session.say(WHOLE + b".\r\n" + GROUP + following + b".\r\n", 5)[-1] == b"250"
    assert sink.copies() == (["run-1", "run-2"], 0)


def test_the_sink_counts_the_forward_paths_of_each_copy_and_finds_an_id_behind_a_long_field(
    sink: Sink, session: Session
) -> None:
    two = GROUP.replace(b"DATA", b"RCPT TO:<8user@example.org>\r\nDATA")
    long = b"To: " + b",\r\n ".join(b"user%d@example.org" % number for number in range(400)) + b"\r\n" + WHOLE
    assert session.say(two, 4) == [b"250", b"250", b"250", b"354"]
    session.say(long + b".\r\n")
    session.say(GROUP, 3)
    session.say(WHOLE.replace(b"run-1", b"run-2") + b".\r\n")
    assert (sink.state()["forward_paths"], sink.copies()) == (3, (["run-1", "run-2"], 0))


def test_the_sink_takes_chunks(sink: Sink, session: Session) -> None:
    envelope, half = GROUP.removesuffix(b"DATA\r\n"), len(WHOLE) // 2
    first, last = WHOLE[:half], WHOLE[half:]
    chunks = b"BDAT %d\r\n%bBDAT %d LAST\r\n%b" % (len(first), first, len(last), last)
    assert session.say(envelope + chunks, 4) == [b"250"] * 4
    assert sink.copies() == (["run-1"], 0)


def test_a_message_without_an_id_is_known_by_the_number_of_its_recipient(sink: Sink, session: Session) -> None:
    session.say(GROUP, 3)
    session.say(WHOLE.removeprefix(b"X-Bench-Id: run-1\r\n") + b".\r\n")
    assert sink.copies() == (["7"], 0)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"<1user@example.org>", "1"),
        (b"<user0@example.org>", "1"),
        (b"<user41@example.org>", "42"),
        (b"<user@x.org>", None),
    ],
)
def test_the_numbers_of_either_postfix_count_from_one(path: bytes, number: str | None) -> None:
    assert number_of(path) == number


def test_a_copy_whose_text_ends_early_is_cut(sink: Sink, session: Session) -> None:
    session.say(GROUP, 3)
    session.say(letter("run-1", "Thank you", f"<p>{work.MARK}</p>") + b".\r\n")
    assert sink.copies() == (["run-1"], 1)


def test_a_copy_in_base64_is_decoded_before_it_is_judged(sink: Sink, session: Session) -> None:
    encoded = base64.b64encode(f"x{work.MARK}".encode()).decode()
    cut = base64.b64encode(b"Thank you").decode()
    session.say(GROUP, 3)
    session.say(letter("run-1", encoded, encoded, "base64") + b".\r\n")
    session.say(GROUP, 3)
    session.say(letter("run-2", encoded, cut, "base64") + b".\r\n")
    assert sink.copies() == (["run-1", "run-2"], 1)


def test_after_a_reset_nothing_is_left(sink: Sink, session: Session) -> None:
    session.say(GROUP, 3)
    session.say(WHOLE + b".\r\n")
    sink.reset()
    assert sink.state()["copies"] == 0
    assert sink.copies() == ([], 0)


def test_with_a_certificate_it_takes_mail_only_after_starttls_and_auth(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    trusted = ssl.create_default_context(cafile=str(authority.ca_file))
    trusted.verify_flags |= ssl.VERIFY_X509_STRICT  # as by default since Python 3.13, which some rivals leave as it is
    with Sink(0, authority.chain) as secured, smtplib.SMTP("localhost", secured.port, timeout=20) as client:
        client.ehlo()
        assert client.mail("a@b.example")[0] == 530
        client.starttls(context=trusted)
        client.ehlo()
        assert client.mail("a@b.example")[0] == 530
        client.login("bench", "secret")
        client.sendmail("a@b.example", "c@d.example", WHOLE)
        assert secured.copies() == (["run-1"], 0)


def test_each_reply_is_late_by_the_delay() -> None:
    with Sink(delay_ms=200) as late:
        began = time.monotonic()
        session = Session(late.port)
        session.say(GROUP, 3)
        session.close()
    assert time.monotonic() - began >= 0.4, "the greeting, and the replies to one group"


# --- command line and pictures --------------------------------------------------------------------------------------


def test_all_changes_one_thing_at_a_time() -> None:
    base, *others = variants(parsed(["--all"]))
    assert base == Variant()
    for other in others:
        differing = [name for name in base.as_json() if getattr(base, name) != getattr(other, name)]
        assert len(differing) == 1, other


def test_what_is_given_is_combined() -> None:
    found = list(variants(parsed(["--size", "1,100", "--clients", "1,256", "--delay", "10"])))
    assert [(each.size_kb, each.clients, each.delay_ms) for each in found] == [
        (1, 1, 10), (1, 256, 10), (100, 1, 10), (100, 256, 10),
    ]  # fmt: skip


def test_postroom_is_always_measured_first_and_an_unknown_rival_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed(["--only", "haraka"]).only == ["postroom", "haraka"]
    with pytest.raises(SystemExit):
        parsed(["--only", "sendmail"])
    assert "unknown: sendmail" in capsys.readouterr().err


def test_a_rival_that_broke_down_fails_the_run_and_the_others_go_on() -> None:
    class Broken(Postroom):
        def prepare(self) -> None:
            raise RuntimeError("it ended before it listened")

    class Absent(Postroom):
        def prepare(self) -> None:
            raise NotInstalled("npm is not installed")

    said: list[str] = []
    broken, absent = Rounds([Broken(), Absent()], Variant(), 2, 1.0, said.append).run(latencies=False)
    assert broken.faults == ["failed: it ended before it listened"]
    assert absent.absence == "does not take part: npm is not installed"
    assert len(said) == 3, "who is out has no further turn"


def test_a_bar_is_as_long_as_its_value() -> None:
    drawn = picture.bars("Rates", [picture.Bar("a & b", 100, 90, 200, ours=True), picture.Bar("c", 50, 50, 50)])
    widths = [float(part.partition('"')[0]) for part in drawn.split(' width="')[2:]]
    assert widths[0] == pytest.approx(2 * widths[1])
    assert "a &amp; b" in drawn


def test_the_page_keeps_what_stands_outside_the_marks() -> None:
    start, end = report.MARKS
    assert report.between(f"before\n{start}old\n{end}\nafter", "new\n") == f"before\n{start}new\n{end}\nafter"
    with pytest.raises(SystemExit, match="marks"):
        report.between("no marks", "new")
    assert report.between(report.PAGE.read_text(encoding="utf-8"), "new")
