"""What a relay said: reply code + enhanced status code + text, parsed once.

This file reads replies; it does not judge them (mail/outcome.py does).
"""

import re
from dataclasses import dataclass

# RFC 3463 section 2: class "." subject "." detail; RFC 2034 section 4: right after the reply code, on every line.
_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$)")
MAX_TEXT = 2000  # characters of reply text kept in the delivery log


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply (RFC 5321 section 4.2). `text` has its lines joined by spaces, without code and enhanced code."""

    code: int
    enhanced: str
    text: str

    @property
    def positive(self) -> bool:
        """RFC 5321 4.2.1: 2yz is positive completion."""
        return 200 <= self.code < 300

    @property
    def intermediate(self) -> bool:
        """RFC 5321 4.2.1: 3yz waits for more input (354 after DATA)."""
        return 300 <= self.code < 400

    @property
    def transient(self) -> bool:
        """RFC 5321 4.2.1: 4yz is a transient negative completion."""
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        """RFC 5321 4.2.1: 5yz is a permanent negative completion."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


def decode(raw: bytes) -> str:
    """Reply bytes as text: UTF-8, else GB 18030 (QQ answers in GBK), control characters dropped."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("gb18030", errors="replace")
    return "".join(c for c in text if c.isprintable())


def make_reply(code: int, lines: list[str]) -> Reply:
    """A Reply from its code and the text of its lines (after the code and its separator).

    RFC 2034 section 4 repeats the enhanced code on each line; it is taken off each and kept once.
    """
    enhanced = ""
    kept: list[str] = []
    for line in lines:
        found = _ENHANCED.match(line)
        # RFC 3463: the class digit agrees with the reply code's first digit; else it is only text
        if found and int(found[1]) == code // 100:
            enhanced = enhanced or found[0]
            line = line[found.end() :].strip()
        if line:
            kept.append(line)
    return Reply(code, enhanced, " ".join(kept)[:MAX_TEXT])
