"""The wait that a reply asks for in words: `try again in 300 seconds`, `Greylisted for 5 minutes`, `come back in 00:05:00`.

No RFC has a field for it, so only words that lead up to an amount of time count; a number alone is none. What is done
with the wait, and up to what it is believed, is mail/outcome's.
"""

import re

_UNITS = {"s": 1, "m": 60, "h": 3600, "秒": 1, "分": 60, "小": 3600}
_AMOUNT = r"\d{1,7} ?(?:seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h)\b"
_LEAD = r"\b(?:in|after|for|wait|least)(?: another| about| at least)? "
_IN_WORDS = re.compile(rf"{_LEAD}({_AMOUNT}(?:,? (?:and )?{_AMOUNT})*)", re.IGNORECASE)
_BY_CLOCK = re.compile(rf"(?:{_LEAD}|\bretry=)(\d{{1,3}}):([0-5]\d):([0-5]\d)\b", re.IGNORECASE)
_CHINESE = re.compile(r"(\d{1,7}) ?(秒|分|小时)(?:钟)?(?:之|以)?后")
_PART = re.compile(r"(\d{1,7}) ?([smh])", re.IGNORECASE)


def told_wait(text: str) -> float:
    """Seconds after which a reply's text asks to be tried again; 0.0 when it says nothing of that."""
    if (found := _IN_WORDS.search(text)) is not None:
        return float(sum(int(count) * _UNITS[unit.lower()] for count, unit in _PART.findall(found[1])))
    if (found := _BY_CLOCK.search(text)) is not None:
        hours, minutes, seconds = map(int, found.groups())
        return float(hours * 3600 + minutes * 60 + seconds)
    if (found := _CHINESE.search(text)) is not None:
        return float(int(found[1]) * _UNITS[found[2][0]])
    return 0.0
