"""What every rival is asked to do: a letter of text and html, made from a template, to one recipient, with an id in its header.

The template is written once and translated for Jinja, Django and Handlebars. Most of its bytes are its own text, as with
real templates; a name, a code and a list come from the request. Each part ends with a mark, so that the sink can tell a
whole copy from a cut one. Nothing here knows a rival by name: a rival says which kind of request it takes.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ID_FIELD = "X-Bench-Id"
MARK = "end-of-letter"
SENDER = "hello@lantern.example"
SUBJECT = "Your receipt {{ code }}"
TEMPLATE = "receipt"
LINES = ("2 lamps", "1 shade", "3 wicks", "1 bottle of oil", "delivery")
SIZES = (1, 4, 100)
CONNECTIONS = 20
_FILLER = "Lamps are packed by hand and leave our house on the day that you order them."


@dataclass(frozen=True, slots=True)
class Variant:
    """One column of the matrix."""

    size_kb: int = 4  # of a message at the sink, about
    clients: int = 32
    delay_ms: int = 0  # by which each reply of the relay is late
    tls: bool = False  # STARTTLS and AUTH
    connections: int = CONNECTIONS  # to the relay, at most

    @property
    def title(self) -> str:
        """In words."""
        relay = "STARTTLS and AUTH" if self.tls else "plain SMTP"
        late = f"{self.delay_ms} ms late" if self.delay_ms else "at once"
        return f"{self.size_kb} KB, {self.clients} clients, {self.connections} connections, {relay}, replies {late}"

    @property
    def file_name(self) -> str:
        """Of its picture."""
        parts = [f"{self.size_kb}kb", f"{self.clients}clients", f"{self.delay_ms}ms"]
        parts += [f"{self.connections}connections"] if self.connections != CONNECTIONS else []
        parts += ["tls"] if self.tls else []
        return f"rivals-{'-'.join(parts)}.svg"

    def as_json(self) -> dict[str, Any]:
        """For a process that is started with it."""
        return asdict(self)


# --- templates ------------------------------------------------------------------------------------------------------


def html_source(size_kb: int) -> str:
    """The html in Jinja's words, which are Django's too."""
    paragraphs = "".join(f"<p>{_FILLER}</p>\n" for _ in range(_repeats(size_kb)))
    items = "<ul>\n{% for line in lines %}<li>{{ line }}</li>\n{% endfor %}</ul>"
    head = "<h1>Thank you, {{ name }}</h1>\n<p>Your receipt has the number {{ code }}.</p>"
    return f"<html><body>\n{head}\n{items}\n{paragraphs}<p>{MARK}</p>\n</body></html>\n"


def text_source(size_kb: int) -> str:
    """The same as text."""
    paragraphs = f"{_FILLER}\n\n" * _repeats(size_kb)
    items = "{% for line in lines %}- {{ line }}\n{% endfor %}"
    return f"Thank you, {{{{ name }}}}\n\nYour receipt has the number {{{{ code }}}}.\n\n{items}\n{paragraphs}{MARK}\n"


def _repeats(size_kb: int) -> int:
    return max((size_kb * 1024 - 900) // (2 * len(_FILLER) + 12), 0)


def handlebars(source: str) -> str:
    """A template above in the words of Handlebars."""
    source = source.replace("{% for line in lines %}", "{{#each lines}}").replace("{% endfor %}", "{{/each}}")
    return source.replace("{{ line }}", "{{this}}")


def write_templates(folder: Path, size_kb: int) -> None:
    """For rivals that read files: receipt.html and receipt.txt, and both in Handlebars' words."""
    folder.mkdir()
    for ending, source in (("html", html_source(size_kb)), ("txt", text_source(size_kb))):
        (folder / f"{TEMPLATE}.{ending}").write_text(source)
        (folder / f"{TEMPLATE}.{ending}.hbs").write_text(handlebars(source))
    (folder / f"{TEMPLATE}.subject.hbs").write_text(SUBJECT)


def write_postroom_template(folder: Path, size_kb: int, name: str = TEMPLATE) -> None:
    """The folder of a Postroom template."""
    place = folder / name
    place.mkdir(parents=True)
    for file, text in postroom_files(size_kb).items():
        (place / file).write_text(text)


def postroom_files(size_kb: int) -> dict[str, str]:
    """What a Postroom template consists of, by name of the file."""
    string = 'type = "string"'
    tables = [
        f'description = "A receipt."\nlocale = "en"\nsubject = "{SUBJECT}"\n',
        '[variables]\ntype = "object"\nrequired = ["name", "code", "lines"]\nadditionalProperties = false\n',
        f"[variables.properties.name]\n{string}\n\n[variables.properties.code]\n{string}\n",
        f'[variables.properties.lines]\ntype = "array"\nitems = {{ {string} }}\n',
        f'[sample]\nname = "Ada"\ncode = "1-1"\nlines = {json.dumps(LINES)}\n',
    ]
    return {"html.j2": html_source(size_kb), "text.j2": text_source(size_kb), "template.toml": "\n".join(tables)}


def prebuilt(size_kb: int) -> str:
    """A message that is ready, for a rival whose door is SMTP: LF line ends, no id."""
    html, text = (_filled(source(size_kb)) for source in (html_source, text_source))
    head = f"From: Lantern <{SENDER}>\nTo: reader@example.org\nSubject: Your receipt 1-1\nMIME-Version: 1.0\n"
    kind = 'Content-Type: multipart/alternative; boundary="part"\n\n'
    parts = "".join(
        f"--part\nContent-Type: text/{name}; charset=utf-8\n\n{body}\n"
        for name, body in (("plain", text), ("html", html))
    )
    return f"{head}{kind}{parts}--part--\n"


def _filled(source: str) -> str:
    loop = re.compile(r"\{% for line in lines %\}(.*?)\{% endfor %\}", re.S)
    source = loop.sub(lambda found: "".join(found[1].replace("{{ line }}", line) for line in LINES), source)
    return source.replace("{{ name }}", "Ada").replace("{{ code }}", "1-1")


# --- requests -------------------------------------------------------------------------------------------------------


def identifier(run: str, number: int) -> str:
    """What stands in the header of message `number`."""
    return f"{run}-{number}"


def body(kind: str, run: str, numbers: range) -> dict[str, Any]:
    """The JSON that asks for these messages. `kind`: simple (one), postroom (one) or postroom-batch."""
    if kind == "simple":
        return _simple(run, numbers[0])
    if kind == "postroom":
        return {**_base(), **_own(run, numbers[0])}
    if kind == "postroom-batch":
        return {"base": _base(), "messages": [_own(run, number) for number in numbers]}
    raise ValueError(f"kind: {kind!r} is none of simple, postroom, postroom-batch")


def _simple(run: str, number: int) -> dict[str, Any]:
    return {"id": identifier(run, number), "to": _recipient(number), **_variables(number)}


def _base() -> dict[str, Any]:
    return {"from": f"Lantern <{SENDER}>"}


def _own(run: str, number: int) -> dict[str, Any]:
    return {
        "to": _recipient(number),
        "headers": {ID_FIELD: identifier(run, number)},
        "template": {"name": TEMPLATE, "variables": _variables(number)},
    }


def _recipient(number: int) -> str:
    return f"user{number}@example.org"


def recipients(number: int, count: int) -> list[str]:
    """The forward-paths of message `number` when it has several."""
    return [f"user{number}-{each}@example.org" for each in range(count)]


def _variables(number: int) -> dict[str, Any]:
    return {"name": "Ada Lovelace", "code": f"{number:08}", "lines": list(LINES)}


def http_request(path: str, body: dict[str, Any], fields: dict[str, str]) -> bytes:
    """One HTTP/1.1 POST."""
    content = json.dumps(body).encode()
    fields = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(content)), **fields}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + content
