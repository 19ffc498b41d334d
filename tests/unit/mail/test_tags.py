"""The reader of tags sees what html says, in time that grows with its length."""

import time

import pytest

from service.mail.tags import Attributes, TagReader, depth_of


class Seen(TagReader):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.events: list[object] = []
        self.lines: list[int] = []
        self.feed(html)
        self.close()

    def _add(self, event: object) -> None:
        self.events.append(event)
        self.lines.append(self.getpos()[0])

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        self._add((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self._add(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self._add(data)

    def handle_comment(self, data: str) -> None:
        self._add(f"!{data}")

    def handle_unclosed(self, tag: str) -> None:
        self._add(f"?{tag}")


@pytest.mark.parametrize(
    ("html", "events"),
    [
        ("<P>a &amp; b</p>", [("p", {}), "a & b", "/p"]),
        ("<a href='x>y' Title=\"&lt;\" b c=1>", [("a", {"href": "x>y", "title": "<", "b": None, "c": "1"})]),
        ("<a href=x/y/>z<i b/>", [("a", {"href": "x/y/"}), "z", ("i", {"b": None}), "/i"]),
        ("<a b= c=''>", [("a", {"b": "c=''"})]),
        ("<br/><img alt='' />", [("br", {}), "/br", ("img", {"alt": ""}), "/img"]),
        ("<p title=it's>x</p>", [("p", {"title": "it's"}), "x", "/p"]),
        ("a<b", ["a", "?b"]),
        ("1 < 2 <3", ["1 < 2 <3"]),
        ("<a href='x>y", ["?a"]),
        ("<!-- <p> -->x<!DOCTYPE html><?x?>", ["! <p> ", "x"]),
        ("<!-- open", ["! open"]),
        ("<style>a > b { c: '<p>' }</style>x", [("style", {}), "a > b { c: '<p>' }", "/style", "x"]),
        ("<script>1</scripts></script >", [("script", {}), "1</scripts>", "/script"]),
        ("<title>a<b>&amp;</title>", [("title", {}), "a<b>&", "/title"]),
        ("<style>x", [("style", {}), "x"]),
        ("</p x='1'>", ["/p"]),
    ],
)
def test_what_is_written_is_read(html: str, events: list[object]) -> None:
    assert Seen(html).events == events


def test_each_event_has_its_line() -> None:
    assert Seen("a\n<p\n>b\n\n<!--\n--><br>\n</p>").lines == [1, 2, 3, 5, 6, 6, 7]


@pytest.mark.parametrize(
    "piece",
    ['<a "', "<a b='", '<a b="', "<!--", "<!", "<?", "<![CDATA[", "</a", "<a ", "<style>", "<style ", "<title>", "&", "<", "<a b= ", "<a b='\"", "</style"],
)  # fmt: skip
def test_time_grows_with_the_length_and_not_with_its_square(piece: str) -> None:
    began = time.process_time()
    Seen(piece * (400_000 // len(piece)))
    assert time.process_time() - began < 1.5


def test_depth_counts_what_is_open_at_once() -> None:
    assert depth_of("<div><p>a<br></p><p><b></b></p></div>") == 3
    assert depth_of("<div>" * 5000) == 5000
    assert depth_of("</div>" * 5 + "<p>") == 1
