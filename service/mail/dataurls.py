"""`data:` images of html become inline attachments: most readers of mail refuse the former and show the latter."""

import re
from html import unescape

import pybase64

from service.mail.draft import Attachment

_DATA_URL = re.compile(
    r"(?P<before><img\b[^<>]{0,1000}?\ssrc\s*=\s*)(?P<quote>[\"'])data:(?P<type>image/(?:png|jpeg|gif|webp|bmp))"
    r";base64,(?P<data>[^\"']*)(?P=quote)",
    re.I,
)


def embed_data_urls(html: str, seed: str, most: int = 1000) -> tuple[str, tuple[Attachment, ...]]:
    """The html with `cid:` in place of base64 `data:` images, and the images, `most` at most. What is no good base64 stays."""
    files: list[Attachment] = []
    known: dict[tuple[str, bytes], str] = {}

    def replace(found: re.Match[str]) -> str:
        if len(files) >= most:
            return found[0]
        try:
            content = pybase64.b64decode("".join(unescape(found["data"]).split()), validate=True)
        except ValueError:
            return found[0]
        kind = found["type"].lower()
        content_id = known.get((kind, content))
        if content_id is None:
            content_id = known[kind, content] = f"image{len(known) + 1}.{seed}"
            name = f"image{len(known)}.{kind.partition('/')[2]}"
            files.append(Attachment(name, content, kind, content_id, "inline"))
        return f"{found['before']}{found['quote']}cid:{content_id}{found['quote']}"

    return _DATA_URL.sub(replace, html), tuple(files)
