"""pydantic's findings in our own plain sentences: a table from the type of an error to what is said of the field.

The types are those that the models of this package can raise; a test provokes every one of them. Nothing of pydantic's
own text is ever shown: it names Python's types and our classes, which mean nothing to a caller.
"""

from collections.abc import Callable, Mapping
from typing import Any

from service.api.fields import PATTERNS

Context = Mapping[str, Any]

_WORDS: Mapping[str, str] = {
    "missing": "is required",
    "string_type": "must be text",
    "string_unicode": "must be text without lone surrogates",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "list_type": "must be a list",
    "dict_type": "must be an object",
}
_COUNTED: Mapping[str, tuple[str, str]] = {  # type -> (sentence, which member of the context stands in it)
    "string_too_long": ("must have at most {} {things}", "max_length"),
    "too_short": ("must have at least {} {things}", "min_length"),
    "too_long": ("must have at most {} {things}", "max_length"),
    "greater_than_equal": ("must be {} or more", "ge"),
    "less_than_equal": ("must be {} or less", "le"),
}
# what an object looks like, by the model that reads it
_OBJECTS: Mapping[str, str] = {
    "TemplateUse": 'must be an object such as {"name": "welcome"}',
    "AttachmentIn": 'must be an object such as {"filename": "a.pdf", "content": "JVBERi0="}',
    "AlternativeIn": 'must be an object such as {"content_type": "text/markdown", "content": "# Hello"}',
    "CalendarIn": 'must be an object such as {"method": "REQUEST", "content": "BEGIN:VCALENDAR..."}',
    "SendIn": "the body must be one JSON object, the message; a list of messages goes to POST /send/batch",
    "BatchIn": 'the body must be an object such as {"base": {...}, "messages": [{...}, {...}]}',
    "RescheduleIn": 'the body must be an object such as {"scheduled_at": "2099-01-01T09:00:00+08:00"}',
    "FilesIn": 'the body must be an object such as {"files": {"template.toml": "...", "html.j2": "..."}}',
    "SuppressionIn": 'the body must be an object such as {"email": "a@example.org"}',
    "KeyIn": 'the body must be an object such as {"name": "shop"}',
    "SendTestIn": 'the body must be an object such as {"from": "a@example.com", "to": "b@example.org"}',
}


def _counted(kind: str, context: Context, of_text: bool) -> str:
    sentence, member = _COUNTED[kind]
    number = context[member]
    one, several = ("character", "characters") if of_text else ("entry", "entries")
    return sentence.format(number, things=one if number == 1 else several)


def _object(context: Context) -> str:
    return _OBJECTS.get(context["class_name"], "the body must be a JSON object")


def _pattern(context: Context) -> str:
    return PATTERNS[context["pattern"]]


def _choice(context: Context) -> str:
    return f"must be {context['expected'].replace(chr(39), '')}"


_MADE: Mapping[str, Callable[[Context], str]] = {
    "model_type": _object,
    "string_pattern_mismatch": _pattern,
    "literal_error": _choice,
}
KNOWN = frozenset({*_WORDS, *_COUNTED, *_MADE})


def sentence(kind: str, context: Context, *, of_text: bool = False) -> str:
    """What is wrong with a field. `kind` is the type of pydantic's error, `context` what it tells of it.

    `of_text`: the field holds a text, so that its length is one of characters.
    """
    if kind in _COUNTED:
        return _counted(kind, context, of_text)
    if kind in _MADE:
        return _MADE[kind](context)
    return _WORDS.get(kind, "is not what this field takes")
