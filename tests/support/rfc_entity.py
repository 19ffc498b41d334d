"""Raw bytes of a message as the RFCs see them: fields, bodies and nested parts. Knows no rule; rfc_lint has those.

Shares nothing with service/. It is stricter than a reader of mail: what it can't read it leaves for the rules to find.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

Faults = Iterator[str]

QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_PARAMETER = re.compile(r'\s*;\s*([^\s=;"]+)=("(?:[^"\\]|\\.)*"|[^\s;"]*)', re.S)


@dataclass(frozen=True)
class Field:
    """One header field: its name in lower case, its lines without CRLF, its value unfolded."""

    name: str
    lines: tuple[bytes, ...]

    @property
    def value(self) -> str:
        """Unfolded (RFC 5322 2.2.3); octets that are no UTF-8 become U+FFFD."""
        return b"".join(self.lines).partition(b":")[2].decode("utf-8", "replace").strip(" \t")


@dataclass
class Entity:
    """A message or a part of one (RFC 2045 2.4)."""

    header: bytes
    body: bytes
    ended: bool  # an empty line, or nothing, follows the header
    fields: list[Field] = field(default_factory=list)
    parts: list["Entity"] = field(default_factory=list)
    delimiters: list[bytes] = field(default_factory=list)  # what follows `--boundary` on each line that begins with it
    preamble: bytes = b""
    epilogue: bytes = b""

    def get(self, name: str, default: str = "") -> str:
        """The unfolded value of the first field of this name."""
        return next((each.value for each in self.fields if each.name == name), default)

    @property
    def type(self) -> str:
        """`type/subtype` in lower case."""
        return self.get("content-type", "text/plain").partition(";")[0].strip().lower()

    @property
    def encoding(self) -> str:
        """The transfer encoding in lower case."""
        return self.get("content-transfer-encoding", "7bit").lower()

    @property
    def boundary(self) -> str | None:
        """The boundary parameter of a multipart."""
        return unquoted(dict(parameters(self.get("content-type")))["boundary"]) if self._is_multipart() else None

    def _is_multipart(self) -> bool:
        return self.type.startswith("multipart/") and "boundary" in dict(parameters(self.get("content-type")))

    def walk(self) -> Iterator["Entity"]:
        """This entity and everything in it."""
        yield self
        for part in self.parts:
            yield from part.walk()


def parameters(value: str) -> list[tuple[str, str]]:
    """(name in lower case, raw value with its quotes) of a Content-Type or Content-Disposition."""
    return [(name.lower(), raw) for name, raw in _PARAMETER.findall(value.partition(";")[1] + value.partition(";")[2])]


def without_parameters(value: str) -> str:
    """What is left of the value when everything that is a parameter is taken away."""
    kind, mark, rest = value.partition(";")
    return kind.strip() + _PARAMETER.sub("", mark + rest).strip()


def unquoted(raw: str) -> str:
    """The content of a quoted string, or the token."""
    return re.sub(r"\\(.)", r"\1", raw[1:-1], flags=re.S) if raw.startswith('"') else raw


def parse(raw: bytes) -> Entity:
    """The whole tree."""
    header, mark, body = raw.partition(b"\r\n\r\n")
    if raw.startswith(b"\r\n"):
        header, mark, body = b"", b"\r\n", raw[2:]
    entity = Entity(header, body, ended=bool(mark) or raw.endswith(b"\r\n"), fields=_fields(header))
    if entity.boundary:
        _split(entity, entity.boundary.encode())
    return entity


def _fields(header: bytes) -> list[Field]:
    grouped: list[list[bytes]] = []
    for line in header.removesuffix(b"\r\n").split(b"\r\n") if header else ():
        if line[:1] in (b" ", b"\t") and grouped:
            grouped[-1].append(line)
        else:
            grouped.append([line])
    return [Field(lines[0].partition(b":")[0].decode("latin-1").lower(), tuple(lines)) for lines in grouped]


def _split(entity: Entity, boundary: bytes) -> None:
    """RFC 2046 5.1.1: the CRLF before a delimiter belongs to the delimiter."""
    pieces = (b"\r\n" + entity.body).split(b"\r\n--" + boundary)
    entity.preamble = pieces[0]
    for piece in pieces[1:]:
        rest, _, content = piece.partition(b"\r\n")
        entity.delimiters.append(rest)
        if rest == b"--":
            entity.epilogue = content
        else:
            entity.parts.append(parse(content))


@dataclass(frozen=True)
class Message:
    """What a rule looks at."""

    raw: bytes
    root: Entity
    eai: bool

    def fields(self, *names: str) -> Iterator[Field]:
        """All fields of the message header, or those of the names."""
        return (each for each in self.root.fields if not names or each.name in names)

    def every_field(self) -> Iterator[Field]:
        """The fields of the message and of its parts."""
        return (each for entity in self.root.walk() for each in entity.fields)

    def leaves(self) -> Iterator[Entity]:
        """The parts that hold no parts."""
        return (entity for entity in self.root.walk() if not entity.type.startswith("multipart/"))
