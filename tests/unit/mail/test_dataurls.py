"""Images in the html itself become inline attachments that readers show."""

import base64
import time

import pytest

from service.mail.dataurls import embed_data_urls

PNG = base64.b64encode(b"\x89PNG one").decode()
GIF = base64.b64encode(b"GIF89a two").decode()


def test_an_image_becomes_an_attachment_and_its_source_a_content_id() -> None:
    html, files = embed_data_urls(f'<p><img alt="a" src="data:image/png;base64,{PNG}" width="9"></p>', "seed")
    assert html == '<p><img alt="a" src="cid:image1.seed" width="9"></p>'
    (one,) = files
    assert (one.filename, one.content, one.content_type) == ("image1.png", b"\x89PNG one", "image/png")
    assert (one.content_id, one.disposition) == ("image1.seed", "inline")


def test_the_same_image_is_attached_once_and_another_beside_it() -> None:
    one, two = f"<img src='data:image/png;base64,{PNG}'>", f'<IMG SRC="data:image/gif;base64,{GIF}">'
    html, files = embed_data_urls(one + two + one, "s")
    assert html == "<img src='cid:image1.s'><IMG SRC=\"cid:image2.s\"><img src='cid:image1.s'>"
    assert [each.filename for each in files] == ["image1.png", "image2.gif"]


def test_base64_may_be_broken_into_lines() -> None:
    broken = PNG[:4] + "\r\n  " + PNG[4:8] + "&#10;" + PNG[8:]
    _, files = embed_data_urls(f'<img src="data:image/png;base64,{broken}">', "s")
    assert files[0].content == b"\x89PNG one"


@pytest.mark.parametrize(
    "html",
    [
        '<img src="data:image/png;base64,not base64!">',
        '<img src="data:image/svg+xml;base64,PHN2Zz4=">',
        '<img src="data:text/html;base64,PHA+">',
        '<img src="data:image/png,plain">',
        '<img src="https://x.example/a.png">',
        '<a href="data:image/png;base64,AAAA">x</a>',
        f'<img src="data:image/png;base64,{PNG}',
        "<imgs src='data:image/png;base64,AAAA'>",
    ],
)
def test_what_is_no_image_in_base64_stays(html: str) -> None:
    assert embed_data_urls(html, "s") == (html, ())


@pytest.mark.parametrize(
    "piece", ["<img ", "<img src='data:image/png;base64,", "<img src= src = ", "<img" + " src" * 200, "<img src" + " " * 500]
)  # fmt: skip
def test_time_grows_with_the_length_and_not_with_its_square(piece: str) -> None:
    began = time.process_time()
    embed_data_urls(piece * (1_000_000 // len(piece)), "s")
    assert time.process_time() - began < 1.5
