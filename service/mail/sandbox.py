"""The sandbox that templates are written for: which syntax is refused at load, and what data may be asked for.

A template's author is trusted little and its variables not at all. Nothing that repeats or pads is allowed
(`'x' * 10**9` and `{{ x | center(10**9) }}` are bombs of a few characters), nothing is called, and data has keys but no
attributes. What may still grow or run long is bounded by mail/bounds. html is autoescaped; URLs in attributes pass the
`url` filter, which refuses `javascript:` and its like, and mail/links sees to it. What an error says is made of the template's own words: a
variable may be a secret.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from jinja2 import DictLoader, StrictUndefined, TemplateSyntaxError, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS as JINJA_TESTS

from service.mail.bounds import INNER, bounded_filter, bounded_test
from service.mail.formats import FILTERS, Formats
from service.mail.meter import METER
from service.mail.template import HALF_CHARACTER, TemplateFault

FORMATS = "_formats"  # the name in the context under which the language's formats stand; authors can't write it

_REFUSED_NODES = (nodes.Mul, nodes.Pow, nodes.Mod, nodes.Call, nodes.ImportedName, nodes.Import, nodes.FromImport,
                  nodes.Include, nodes.Macro, nodes.CallBlock, nodes.EvalContextModifier,
                  nodes.ScopedEvalContextModifier)  # fmt: skip
_FILTERS = {  # of Jinja's; a later Jinja's new ones are refused until somebody has looked at them
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "filesizeformat", "first", "float",
    "groupby", "int", "items", "join", "last", "length", "list", "lower", "max", "min", "reject", "rejectattr",
    "replace", "reverse", "round", "select", "selectattr", "sort", "string", "striptags", "sum", "title", "trim",
    "truncate", "unique", "upper", "urlencode", "wordcount",
}  # fmt: skip
_NAMES_A_TEST = {"select": 0, "reject": 0, "selectattr": 1, "rejectattr": 1}  # filter -> which argument
_MOST_BITS = 1000  # of a whole number that an author writes; Python refuses to show one of thousands of digits
_CHEAP_TESTS = {"defined", "undefined", "none"}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_URL_DETAIL = "must be an https:, mailto: or tel: URL without spaces and backslashes (http: only for localhost)"
_PLAIN_URL = re.compile(r"https://[A-Za-z0-9][A-Za-z0-9.-]*(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/?#-]*)?")
# spaces and controls, which readers drop or stop at, and marks that make a URL look like another (UAX 9, zero width)
_NOT_IN_URLS = re.compile(r"[\s\x00-\x20\x7f-\x9f\\\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def safe_url(value: object, place: str = "") -> str:
    """The `url` filter. Raises SecurityError for anything but https, http on loopback, mailto and tel.

    `place` is put there when the template is loaded (`_name_url`): file, line and variable, never its value.
    """
    text = str(value)
    if _PLAIN_URL.fullmatch(text) or _is_safe_url(text):
        return text
    raise SecurityError(f"{place}{_URL_DETAIL}")


def _is_safe_url(text: str) -> bool:
    if _NOT_IN_URLS.search(text):
        return False
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port  # raises for a port that is none
    except ValueError:
        return False
    if parts.scheme in {"https", "http"}:  # `https:evil` and `https:///evil` have no host, and readers find one
        return re.search(r"\w", host or "") is not None and (parts.scheme == "https" or host in _LOOPBACK)
    return parts.scheme in {"mailto", "tel"} and len(text) > len(parts.scheme) + 1


class Environment(ImmutableSandboxedEnvironment):
    """Jinja with our rules."""

    intercepted_binops = frozenset({"+"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.words: set[str | int] = set()  # that stand in the sources themselves, so that an error may show them
        self.from_mjml: frozenset[str] = frozenset()  # files whose lines are not those that the author wrote

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Data has keys, not attributes; only Jinja's own objects (loop, self) have them."""
        return type(obj).__module__.startswith("jinja2.") and super().is_safe_attribute(obj, attr, value)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`order.items` is the key `items`, whatever methods a dict has."""
        if type(obj) is dict:
            try:
                return obj[attribute]
            except KeyError:
                return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """The same for `order["items"]` and for keys that a filter is given."""
        if type(obj).__module__.startswith("jinja2."):
            return super().getitem(obj, argument)
        try:
            return obj[argument]
        except (TypeError, LookupError, AttributeError):
            if isinstance(argument, str | int) and argument in self.words:
                return self.undefined(obj=obj, name=argument)  # type: ignore[arg-type]
            return self.undefined(hint="there is nothing under a key that a variable holds")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`+` puts texts and lists together, so it asks first."""
        meter = context[METER]
        if isinstance(left, str) and isinstance(right, str):
            meter.fits(len(left) + len(right))
        made = super().call_binop(context, operator, left, right)
        if isinstance(made, list | tuple):
            meter.weigh(made)
        return made


def environment(sources: Mapping[str, str], *, html: bool) -> Environment:
    """For html (autoescaped) or for text."""
    made = Environment(
        loader=DictLoader(dict(sources)),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters, made.tests = _FILTERS_OF_ALL, _TESTS_OF_ALL
    made.globals.clear()
    return made


def _with_formats(method: Callable[..., str]) -> Callable[..., str]:
    @pass_context
    def apply(context: Context, value: Any, *arguments: Any, **named: Any) -> str:
        if isinstance(value, Undefined):
            str(value)  # raises UndefinedError with the variable's name
        formats: Formats = context[FORMATS]
        return method(formats, value, *arguments, **named)

    return apply


# Made once for all templates: a set for each environment would be three quarters of what a compiled template holds
_FILTERS_OF_ALL: dict[str, Any] = {
    **{name: bounded_filter(name, JINJA_FILTERS[name]) for name in _FILTERS},
    "url": safe_url,
    **{name: _with_formats(method) for name, method in FILTERS.items()},
    **INNER,
}
_JINJA_TESTS: Mapping[str, Any] = JINJA_TESTS
_TESTS_OF_ALL: dict[str, Any] = {
    name: test if name in _CHEAP_TESTS else bounded_test(test) for name, test in _JINJA_TESTS.items()
}


def check_source(file: str, source: str, within: Environment) -> nodes.Template:
    """Parse; refuse with file and line what templates may not do. Raises TemplateFault."""
    try:
        tree = within.parse(source, file)
    except TemplateSyntaxError as error:
        raise TemplateFault(file, error.lineno, str(error.message)) from None
    except RecursionError:
        raise TemplateFault(file, 1, "is nested too deeply") from None
    except ValueError:  # Python's own words on a number of thousands of digits
        raise TemplateFault(file, 1, "holds a number that is too long") from None
    _check_constants(file, tree)
    for node in tree.find_all(_REFUSED_NODES):
        if not (isinstance(node, nodes.Call) and block_called(node)):
            what = type(node).__name__
            raise TemplateFault(
                file, node.lineno, f"{what} is not allowed in templates: hand the value in as a variable"
            )
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise TemplateFault(file, loop.lineno, "`recursive` is not allowed in templates")
    for each in (*tree.find_all(nodes.Filter), *tree.find_all(nodes.Test)):
        _check_use(file, each, within)
    _check_names(file, tree)
    within.words.update(_words(tree))
    for each in tree.find_all(nodes.Filter):
        if each.name == "url":
            _name_url(file, each, within)
    return tree


def _check_constants(file: str, tree: nodes.Template) -> None:
    for const in tree.find_all(nodes.Const):
        if isinstance(const.value, int) and const.value.bit_length() > _MOST_BITS:
            raise TemplateFault(file, const.lineno, "holds a number that is too long")
        if isinstance(const.value, str) and HALF_CHARACTER.search(const.value):
            raise TemplateFault(file, const.lineno, "holds half of a character, which no mail can hold")


def _name_url(file: str, each: nodes.Filter, within: Environment) -> None:
    """Hand the filter its place, so that a refusal says where and of what; the tree is not the author's any more then."""
    if each.args or each.kwargs:
        raise TemplateFault(file, each.lineno, "`url` takes no arguments")
    name = (dotted(each.node) or "what `url` is given")[:80]
    place = f"{file.removesuffix('.j2')}.mjml" if file in within.from_mjml else f"{file}:{each.lineno}"
    each.args = [nodes.Const(f"{place}: {name} ", lineno=each.lineno)]


def dotted(node: nodes.Node | None) -> str | None:
    """`order.link` for a variable; None for any other expression."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr) and (outer := dotted(node.node)):
        return f"{outer}.{node.attr}"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and (outer := dotted(node.node)):
        return f"{outer}[{node.arg.value!r}]"
    return None


def _check_names(file: str, tree: nodes.Template) -> None:
    """No name leads out of the data."""
    for attribute in tree.find_all(nodes.Getattr):
        if attribute.attr.startswith("_") or attribute.attr in {"format", "format_map"}:
            raise TemplateFault(file, attribute.lineno, f"the name {attribute.attr!r} is not allowed in templates")
    for name in tree.find_all(nodes.Name):
        if name.name.startswith("_"):
            raise TemplateFault(file, name.lineno, f"the name {name.name!r} is not allowed in templates")


def _check_use(file: str, each: Any, within: Environment) -> None:
    """A filter or a test must exist, and which one it is stands in the source."""
    kind, known = ("filter", within.filters) if isinstance(each, nodes.Filter) else ("test", within.tests)
    if each.name not in known or each.name.startswith("_"):
        why = f"there is no {kind} `{each.name}`"
        if kind == "filter" and each.name in JINJA_FILTERS:
            why = f"the filter `{each.name}` is not allowed in templates"
        raise TemplateFault(file, each.lineno, why)
    if each.dyn_args is not None or each.dyn_kwargs is not None:
        raise TemplateFault(file, each.lineno, f"`*` is not allowed in the arguments of `{each.name}`")
    place = _NAMES_A_TEST.get(each.name) if kind == "filter" else None
    if place is not None and len(each.args) > place:
        named = each.args[place]
        if not isinstance(named, nodes.Const) or named.value not in within.tests:
            raise TemplateFault(file, each.lineno, f"`{each.name}` needs the name of a test, as text")


def _words(tree: nodes.Template) -> Iterator[str | int]:
    for each in tree.find_all(nodes.Const):
        if isinstance(each.value, int):
            yield each.value
        elif isinstance(each.value, str):
            yield from (each.value, *each.value.split("."))


def block_called(node: nodes.Node) -> str | None:
    """`super` or the block's name for `super()` and `self.block()` without arguments: the only calls there are."""
    if not isinstance(node, nodes.Call) or node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
        return None
    called = node.node
    if isinstance(called, nodes.Getattr) and isinstance(called.node, nodes.Name) and called.node.name == "self":
        return called.attr
    return "super" if isinstance(called, nodes.Name) and called.name == "super" else None
