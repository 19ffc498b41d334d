"""Templates: compiled once, rendered in a sandbox, with a deadline and a size checked for each chunk.

All that does not depend on the variables is done at load: the schema is compiled, inheritance resolved (mail/flatten),
CSS inlined (mail/inline). Variables are plain JSON data, checked against the schema before rendering. Pure: sources come
as arguments, time is an argument.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jinja2 import Template as JinjaTemplate
from jinja2.exceptions import TemplateError

from service.errors import FieldProblem, TemplateRenderError
from service.mail.bounds import bound
from service.mail.css_cost import CostlySelector
from service.mail.flatten import flatten
from service.mail.formats import FormatError, formats_for
from service.mail.inline import Inlined, inline_ahead, inline_rendered
from service.mail.meter import METER, Meter, TooMuch
from service.mail.sandbox import FORMATS, check_source, environment
from service.mail.template import LocaleSource, TemplateFault, TemplateSource, parse_files
from service.mail.variables import Variables

__all__ = [
    "LocaleSource",
    "Rendered",
    "Template",
    "TemplateFault",
    "TemplateSource",
    "compile_template",
    "load_template",
]


_CHUNKS_AT_ONCE = 16  # of a rendering, between two looks at what it has spent


@dataclass(slots=True)  # not frozen: one is made for each message
class Rendered:
    """A message's words."""

    subject: str
    html: str
    text: str | None
    locale: str
    template: str
    digest: str


@dataclass(frozen=True, slots=True)
class _Compiled:
    subject: JinjaTemplate
    html: JinjaTemplate
    text: JinjaTemplate | None
    inlined: Inlined


class Template:
    """A compiled template in all its languages."""

    def __init__(self, source: TemplateSource) -> None:
        """Raises TemplateFault with file and line."""
        self.source = source
        self.name = source.name
        self.description = source.description
        self.schema = dict(source.schema)
        self.locales = tuple(source.locales)
        self.default_locale = source.default_locale
        self.digest = source.digest
        self._variables = _variables(source)
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
        return self.source.locales[self.pick(locale)].sample

    def inlined(self, locale: str) -> Inlined:
        """How the CSS of a language's html was treated."""
        return self._compiled[locale].inlined

    def check(self, variables: Mapping[str, Any], pointer: str = "/template/variables") -> list[FieldProblem]:
        """Every fault of the variables: missing, misspelt, mistyped."""
        return self._variables.problems(variables, pointer)

    def render(
        self,
        variables: Mapping[str, Any],
        locale: str | None,
        *,
        deadline: float,
        monotonic: Callable[[], float],
        max_bytes: int,
        timezone: str = "UTC",
    ) -> Rendered:
        """Render. `deadline` is a moment on `monotonic` (seconds). Raises TemplateRenderError."""
        picked = self.pick(locale)
        compiled = self._compiled[picked]
        data = {**variables, FORMATS: formats_for(_written_as(picked, locale), timezone)}

        def run(part: str, template: JinjaTemplate, finish: Callable[[str], str] = str) -> str:
            meter = Meter(deadline, monotonic, max_bytes)
            # shared: the names are not copied once more, as `generate` would do twice; a template sets none of them
            context = template.new_context({**data, METER: meter}, shared=True)
            try:
                made = finish(_bounded(template.root_render_func(context), meter))
                meter.fits(len(made))
                meter.tick()
            except (TooMuch, CostlySelector, FormatError, TemplateError, TypeError) as error:
                raise _render_error(part, str(error)[:300]) from None
            except Exception as error:  # of Jinja's filters on values that nobody thought of
                # words that are not ours may hold a value, which may be a secret
                raise _render_error(part, f"{type(error).__name__} in an expression") from None
            if not _is_text(made):
                raise _render_error(part, "holds half of a character, which no mail can hold")
            return made

        return Rendered(
            subject=" ".join(run("subject", compiled.subject).split()),
            html=run("html", compiled.html, str if compiled.inlined.ahead else inline_rendered),
            text=run("text", compiled.text) if compiled.text is not None else None,
            locale=picked,
            template=self.name,
            digest=self.digest,
        )


def _written_as(picked: str, asked: str | None) -> str:
    """Numbers and dates follow the reader's own tag (de-AT) when the words are of that language (de)."""
    same = asked is not None and asked.lower().replace("_", "-").split("-")[0] == picked.lower().split("-")[0]
    return asked if same and asked is not None and len(asked) >= len(picked) else picked


def _bounded(chunks: Iterator[str], meter: Meter) -> str:
    parts: list[str] = []
    size = 0
    while some := list(islice(chunks, _CHUNKS_AT_ONCE)):
        size += sum(map(len, some))
        parts += some
        meter.pass_chunk(size)
    return "".join(parts)


def _is_text(made: str) -> bool:
    """Whether UTF-8 can have it: pairs of surrogates are one character, and half of one is none."""
    try:
        return made.isascii() or bool(made.encode("utf-16-le"))  # refuses the same in a third of the time
    except UnicodeEncodeError:
        return False


def _render_error(part: str, why: str) -> TemplateRenderError:
    return TemplateRenderError(
        errors=[FieldProblem("#/template/variables", TemplateRenderError.code, f"{part}: {why}")]
    )


def _variables(source: TemplateSource) -> Variables:
    try:
        return Variables(source.schema)
    except ValueError as error:
        raise TemplateFault(f"{source.name}/template.toml", 1, f"[variables]: {error}") from None


def _compile(source: TemplateSource, locale: str) -> _Compiled:
    each = source.locales[locale]
    prefix = source.name if locale == source.default_locale else f"{source.name}/locales/{locale}"
    html_file, text_file, subject_file = f"{prefix}/html.j2", f"{prefix}/text.j2", f"{prefix}/template.toml"
    default = source.locales[source.default_locale].html  # another language may extend it and fill its blocks
    own = f"{source.name}/html.j2"
    sources = {**source.layouts, own: default, html_file: each.html}
    _check_mjml(source, locale, prefix)
    mjml = frozenset(
        f"{source.name}/{path.removesuffix('.mjml')}.j2" for path in source.files if path.endswith("html.mjml")
    )
    html, inlined = _load(html_file, sources, html=True, inline_css=source.inline_css, own=own, mjml=mjml)
    return _Compiled(
        subject=_load(subject_file, {subject_file: each.subject})[0],
        html=html,
        text=_load(text_file, {text_file: each.text})[0] if each.text is not None else None,
        inlined=inlined,
    )


def _check_mjml(source: TemplateSource, locale: str, prefix: str) -> None:
    """Faults of the Jinja in MJML are named by the lines that the author wrote. Raises TemplateFault."""
    folder = "" if locale == source.default_locale else f"locales/{locale}/"
    if (written := source.files.get(f"{folder}html.mjml")) is not None:
        check_source(f"{prefix}/html.mjml", written, environment({}, html=True))


def _load(
    file: str,
    sources: Mapping[str, str],
    *,
    html: bool = False,
    inline_css: bool = False,
    own: str = "",
    mjml: frozenset[str] = frozenset(),
) -> tuple[JinjaTemplate, Inlined]:
    within = environment(sources, html=html)
    within.from_mjml = mjml
    try:
        tree = flatten(file, sources, within, own=own)
        inlined = inline_ahead(tree) if inline_css else Inlined(ahead=True)
        return JinjaTemplate.from_code(within, within.compile(bound(tree, within), file), {}), inlined
    except TemplateError as error:
        raise TemplateFault(file, getattr(error, "lineno", 1), str(error)) from None
    except CostlySelector as costly:
        raise TemplateFault(*_where(costly.selector, sources, file), str(costly)) from None
    except (RecursionError, SyntaxError, MemoryError):  # Python's own limits, which the code of a template meets
        raise TemplateFault(file, 1, "is nested too deeply") from None


def _where(selector: str, sources: Mapping[str, str], file: str) -> tuple[str, int]:
    """The first file and line that hold it; `file` when it is put together of several."""
    for path, source in sources.items():
        if (at := source.find(selector)) >= 0:
            return path, source.count("\n", 0, at) + 1
    return file, 1


def compile_template(source: TemplateSource) -> Template:
    """Check and compile. Raises TemplateFault with file and line."""
    return Template(source)


def load_template(name: str, files: Mapping[str, str]) -> Template:
    """Read and compile a template's files. Raises TemplateFault and nothing else, whatever the files are."""
    try:
        return compile_template(parse_files(name, files))
    except TemplateFault:
        raise
    except Exception as error:  # one bad file stops neither a start nor a reload
        raise TemplateFault(name, 1, f"can't be compiled: {type(error).__name__}") from None
