"""Templates: compiled once, rendered in a sandbox, with a deadline and a size checked for each chunk.

A template's author is trusted little and its variables not at all. Variables are plain JSON data, checked against the
template's schema before rendering; attribute access, calls on data and every operator that could multiply caller data
are refused when the template is loaded. html is autoescaped; URLs in attributes pass the `url` filter, which refuses
`javascript:` and its like. Pure: sources come as arguments, time is an argument.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from jinja2 import DictLoader, StrictUndefined, TemplateSyntaxError, nodes
from jinja2 import Template as JinjaTemplate
from jinja2.exceptions import SecurityError, TemplateError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from service.errors import FieldProblem, TemplateRenderError

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
LOCALE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
_PARTS = ("subject", "html", "text")
# nothing that repeats or pads: `'x' * 10**9` and `{{ x | center(10**9) }}` are bombs of a few characters
_REFUSED_NODES = (nodes.Mul, nodes.Pow, nodes.Mod, nodes.Call, nodes.ImportedName)
_REFUSED_FILTERS = {
    "center",
    "format",
    "safe",
    "xmlattr",
    "indent",
    "wordwrap",
    "pprint",
    "tojson",
    "map",
    "attr",
    "batch",
}
_URL_SCHEMES = {"https", "http", "mailto", "tel"}


class TemplateFault(Exception):
    """A template that can't be used: where and why."""

    def __init__(self, file: str, line: int, why: str) -> None:
        self.file, self.line, self.why = file, line, why
        super().__init__(f"{file}:{line}: {why}")


@dataclass(frozen=True, slots=True)
class LocaleSource:
    """One language of a template."""

    subject: str
    html: str
    text: str | None
    sample: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """Everything a template is made of, as plain data. `locales` holds at least the default one, named `default`."""

    name: str
    description: str
    schema: Mapping[str, Any]
    locales: Mapping[str, LocaleSource]
    default_locale: str
    layouts: Mapping[str, str] = field(default_factory=dict)
    sample_attachments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message's words."""

    subject: str
    html: str
    text: str | None
    locale: str
    template: str
    version: str


@dataclass(frozen=True, slots=True)
class _Compiled:
    subject: JinjaTemplate
    html: JinjaTemplate
    text: JinjaTemplate | None


def safe_url(value: object) -> str:
    """The `url` filter. Raises SecurityError for anything but https, http, mailto and tel."""
    text = str(value)
    parts = urlsplit(text)
    if parts.scheme.lower() not in _URL_SCHEMES or re.search(r"[\s\x00-\x1f\\]", text):
        raise SecurityError("a URL must begin with https:, http:, mailto: or tel:")
    if parts.scheme.lower() == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise SecurityError("a URL must be https: (http: is for localhost)")
    return text


class _Environment(ImmutableSandboxedEnvironment):
    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Data has keys, not attributes; only Jinja's own objects (loop, self) have them."""
        return type(obj).__module__.startswith("jinja2.") and super().is_safe_attribute(obj, attr, value)


def _environment(sources: Mapping[str, str], *, html: bool) -> _Environment:
    environment = _Environment(
        loader=DictLoader(dict(sources)),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters = {
        name: function for name, function in environment.filters.items() if name not in _REFUSED_FILTERS
    }
    environment.filters["url"] = safe_url
    environment.globals.clear()
    return environment


def _check_source(file: str, source: str, environment: _Environment) -> None:
    try:
        tree = environment.parse(source, file)
    except TemplateSyntaxError as error:
        raise TemplateFault(file, error.lineno, str(error.message)) from None
    for node in tree.find_all(_REFUSED_NODES):
        if not (isinstance(node, nodes.Call) and _is_block_call(node)):
            what = type(node).__name__
            raise TemplateFault(
                file, node.lineno, f"{what} is not allowed in templates: hand the value in as a variable"
            )
    for each in tree.find_all(nodes.Filter):
        if each.name in _REFUSED_FILTERS:
            raise TemplateFault(file, each.lineno, f"the filter `{each.name}` is not allowed in templates")
    for attribute in tree.find_all(nodes.Getattr):
        if attribute.attr.startswith("_") or attribute.attr in {"format", "format_map"}:
            raise TemplateFault(file, attribute.lineno, f"the name {attribute.attr!r} is not allowed in templates")


def _is_block_call(call: nodes.Call) -> bool:
    """`super()` and `self.block()`, without arguments: the only calls there are."""
    if call.args or call.kwargs or call.dyn_args or call.dyn_kwargs:
        return False
    if isinstance(call.node, nodes.Getattr):
        return isinstance(call.node.node, nodes.Name) and call.node.node.name == "self"
    return isinstance(call.node, nodes.Name) and call.node.name == "super"


class Template:
    """A compiled template in all its languages."""

    def __init__(self, source: TemplateSource) -> None:
        self.name = source.name
        self.description = source.description
        self.schema = dict(source.schema)
        self.locales = tuple(source.locales)
        self.default_locale = source.default_locale
        self.version = _version(source)
        self.samples = {locale: dict(each.sample) for locale, each in source.locales.items()}
        self.sample_attachments = source.sample_attachments
        self._validator = _validator(source)
        self._compiled = {locale: _compile(source, locale) for locale in source.locales}

    def pick(self, locale: str | None) -> str:
        """The best language there is: zh-Hant-TW -> zh-Hant -> zh -> any zh-* -> the default."""
        if locale is None:
            return self.default_locale
        by_name = {name.lower(): name for name in self.locales}
        tags = locale.lower().replace("_", "-").split("-")
        for length in range(len(tags), 0, -1):
            if (found := by_name.get("-".join(tags[:length]))) is not None:
                return found
        return next((name for low, name in by_name.items() if low.split("-")[0] == tags[0]), self.default_locale)

    def sample(self, locale: str | None = None) -> Mapping[str, Any]:
        """The sample variables of a language."""
        return self.samples[self.pick(locale)]

    def check(self, variables: Mapping[str, Any], pointer: str = "/template/variables") -> list[FieldProblem]:
        """Every fault of the variables: missing, misspelt, mistyped."""
        return check_variables(self._validator, variables, pointer)

    def render(
        self,
        variables: Mapping[str, Any],
        locale: str | None,
        *,
        deadline: float,
        monotonic: Callable[[], float],
        max_bytes: int,
    ) -> Rendered:
        """Render. `deadline` is a moment on `monotonic` (seconds). Raises TemplateRenderError."""
        picked = self.pick(locale)
        compiled = self._compiled[picked]

        def run(part: str, template: JinjaTemplate) -> str:
            try:
                return _bounded(template.generate(variables), deadline, monotonic, max_bytes)
            except _TooMuch as error:
                raise _render_error(part, str(error)) from None
            except UndefinedError as error:
                raise _render_error(part, str(error.message)) from None
            except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
                raise _render_error(part, f"{type(error).__name__}: {str(error)[:200]}") from None

        return Rendered(
            subject=" ".join(run("subject", compiled.subject).split()),
            html=run("html", compiled.html),
            text=run("text", compiled.text) if compiled.text is not None else None,
            locale=picked,
            template=self.name,
            version=self.version,
        )


class _TooMuch(Exception):
    pass


def _bounded(chunks: Iterator[str], deadline: float, monotonic: Callable[[], float], max_bytes: int) -> str:
    parts: list[str] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        parts.append(chunk)
        if size > max_bytes:
            raise _TooMuch(f"the result is larger than {max_bytes} octets (POSTROOM_MAX_RENDERED_BYTES)")
        if monotonic() > deadline:
            raise _TooMuch("rendering took too long (POSTROOM_RENDER_TIMEOUT)")
    return "".join(parts)


def _render_error(part: str, why: str) -> TemplateRenderError:
    return TemplateRenderError(
        errors=[FieldProblem("#/template/variables", TemplateRenderError.code, f"{part}: {why}")]
    )


def _version(source: TemplateSource) -> str:
    content = json.dumps(
        [
            source.name,
            dict(source.schema),
            {name: [each.subject, each.html, each.text] for name, each in source.locales.items()},
            dict(source.layouts),
        ],
        sort_keys=True,
        ensure_ascii=False,
    )
    return hashlib.sha256(content.encode()).hexdigest()[:10]


def _validator(source: TemplateSource) -> Draft202012Validator:
    try:
        Draft202012Validator.check_schema(source.schema)
    except SchemaError as error:
        raise TemplateFault(f"{source.name}/template.toml", 1, f"[variables]: {error.message}") from None
    return Draft202012Validator(source.schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def _compile(source: TemplateSource, locale: str) -> _Compiled:
    each = source.locales[locale]
    prefix = source.name if locale == source.default_locale else f"{source.name}/locales/{locale}"
    html_file, text_file, subject_file = f"{prefix}/html.j2", f"{prefix}/text.j2", f"{prefix}/template.toml"
    default = source.locales[source.default_locale].html  # another language may extend it and fill its blocks
    html = _environment({**source.layouts, f"{source.name}/html.j2": default, html_file: each.html}, html=True)
    plain = _environment({subject_file: each.subject, text_file: each.text or ""}, html=False)
    for file, text in source.layouts.items():
        _check_source(file, text, html)
    _check_source(html_file, each.html, html)
    _check_source(subject_file, each.subject, plain)
    _check_source(text_file, each.text or "", plain)
    try:
        text_template = plain.get_template(text_file) if each.text is not None else None
        return _Compiled(plain.get_template(subject_file), html.get_template(html_file), text_template)
    except TemplateError as error:
        raise TemplateFault(html_file, getattr(error, "lineno", 1), str(error)) from None


def compile_template(source: TemplateSource) -> Template:
    """Check and compile. Raises TemplateFault with file and line."""
    if NAME.fullmatch(source.name) is None:
        raise TemplateFault(source.name, 1, "a template's name is lower-case letters, digits and hyphens, at most 64")
    return Template(source)


# --- variables --------------------------------------------------------------------------------------------------


def check_variables(validator: Draft202012Validator, variables: Mapping[str, Any], pointer: str) -> list[FieldProblem]:
    """All faults at once, each at its own pointer."""
    problems: list[FieldProblem] = []
    for error in sorted(validator.iter_errors(variables), key=lambda error: list(map(str, error.absolute_path))):
        place = "#" + pointer + "".join(f"/{_escape(str(step))}" for step in error.absolute_path)
        problems += _problems_of(error, place)
    return problems


def _problems_of(error: Any, place: str) -> list[FieldProblem]:
    if error.validator == "required":  # one error for each missing name
        name = next(name for name in error.validator_value if error.message.startswith(repr(name)))
        return [FieldProblem(f"{place}/{_escape(name)}", "missing", "is missing")]
    if error.validator == "additionalProperties":
        known: Sequence[str] = list(error.schema.get("properties", {}))
        return [
            FieldProblem(f"{place}/{_escape(name)}", "unknown_variable", _did_you_mean(name, known))
            for name in error.instance
            if name not in known
        ]
    # the message of jsonschema shows the value; a variable may be a secret, so only the rule is told
    return [FieldProblem(place, "invalid_variable", f"must satisfy {error.validator}: {_short(error.validator_value)}")]


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"is not known; did you mean {near[0]}?" if near else "is not known to this template"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."


def _escape(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")
