"""The text part that is derived from html: its words, its links, and time that grows with its length."""

import time

import pytest

from service.mail.text import html_to_text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", "\n"),
        ("<p>a<p>b", "a\n\nb\n"),
        ("a<br>b", "a\nb\n"),
        ("<ul><li>a<li>b</ul>", "- a\n- b\n"),
        ("<table><tr><td>a<td>b<tr><td>c<td>d</table>", "a  b\nc  d\n"),
        ("<a href='https://x.example/'>here</a>", "here (https://x.example/)\n"),
        ("<a href='https://x.example/'>https://x.example/</a>", "https://x.example/\n"),
        ("<a href='mailto:a@b.example'>write</a>", "write (a@b.example)\n"),
        ("<a href='https://x.example/'><img alt='Logo' src='x'></a>", "Logo (https://x.example/)\n"),
        ("<a href='#top'>up</a>", "up\n"),
        ("<a href='https://x.example/'>one<a href='https://y.example/'>two</a>", "one (https://x.example/)two (https://y.example/)\n"),
        ("<style>b{}</style><script>x</script><title>t</title>shown", "shown\n"),
        ("<div style='display: none'>hid<div>den</div></div>shown", "shown\n"),
        ("<head><p>x</head>shown", "shown\n"),
        ("&lt;b&gt; &amp; &#20320;", "<b> & 你\n"),
        ("a\n  b\tc", "a b c\n"),
        ("<p>a</p>\n\n\n<p>b</p>", "a\n\nb\n"),
        ("<head><title>t</title><body>hello", "hello\n"),
        ("<p style='display:none'>x<p>visible after", "visible after\n"),
        ("<ul><li style='display:none'>x<li>shown</ul>", "- shown\n"),
        ("<div style='display:none'><p>x<p>y</div>shown", "shown\n"),
        ("<a href='HTTPS://x.example/'>here</a>", "here (HTTPS://x.example/)\n"),
        ("<a href=' https://x.example/ '>here</a>", "here (https://x.example/)\n"),
        ("<a href='MailTo:a@b.example'>write</a>", "write (a@b.example)\n"),
        ("<a href='https://x.example/'>never closed", "never closed (https://x.example/)\n"),
        ("a\u00a0\u00a0b", "a  b\n"),
        ("<noscript>off</noscript>on", "on\n"),
    ],
)  # fmt: skip
def test_the_words_of_html(html: str, text: str) -> None:
    assert html_to_text(html) == text


@pytest.mark.parametrize(
    "piece",
    [
        '<a "',
        "<a href='https://x'>",
        "<div>",
        "</p>",
        "<style>",
        "<!--",
        "&amp",
        "<head>",
        "<td>x",
        "\n",
        "<a href=",
        "x<br>",
    ],
)
def test_time_grows_with_the_length_alone(piece: str) -> None:
    """A thousand times as much as a mail has; what is square takes minutes."""
    for html in (piece * 50_000, "<head>" * 20_000 + piece * 20_000, piece * 20_000 + "</a></p></head>" * 20_000):
        began = time.process_time()
        html_to_text(html)
        assert time.process_time() - began < 3
