"""The sandbox that templates are written for: which syntax is refused at load, and what data may be asked for.

A template's author is trusted little and its variables not at all. Nothing that repeats or pads is allowed
(`'x' * 10**9` and `{{ x | center(10**9) }}` are bombs of a few characters), nothing is called, and data has keys but no
attributes. html is autoescaped; URLs in attributes pass the `url` filter, which refuses `javascript:` and its like.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from jinja2 import DictLoader, StrictUndefined, TemplateSyntaxError, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from service.mail.formats import FILTERS, Formats
from service.mail.template import TemplateFault

FORMATS = "_formats"  # the name in the context under which the language's formats stand; authors can't write it

_REFUSED_NODES = (nodes.Mul, nodes.Pow, nodes.Mod, nodes.Call, nodes.ImportedName, nodes.Import, nodes.FromImport,
                  nodes.Include, nodes.Macro, nodes.CallBlock, nodes.EvalContextModifier,
                  nodes.ScopedEvalContextModifier)  # fmt: skip
_REFUSED_FILTERS = {
    "center", "format", "safe", "xmlattr", "indent", "wordwrap", "pprint", "tojson", "map", "attr", "batch",
}  # fmt: skip
_URL_SCHEMES = {"https", "http", "mailto", "tel"}
_PLAIN_URL = re.compile(r"https://[A-Za-z0-9.-]+(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/?#-]*)?")


def safe_url(value: object) -> str:
    """The `url` filter. Raises SecurityError for anything but https, http on loopback, mailto and tel."""
    text = str(value)
    if _PLAIN_URL.fullmatch(text):
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        raise SecurityError("this is no URL") from None
    if parts.scheme.lower() not in _URL_SCHEMES or re.search(r"[\s\x00-\x1f\\]", text):
        raise SecurityError("a URL must begin with https:, http:, mailto: or tel:")
    if parts.scheme.lower() == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise SecurityError("a URL must be https: (http: is for localhost)")
    return text


class Environment(ImmutableSandboxedEnvironment):
    """Jinja with our rules."""

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
    made.filters = {name: function for name, function in made.filters.items() if name not in _REFUSED_FILTERS}
    made.filters["url"] = safe_url
    made.filters.update({name: _with_formats(method) for name, method in FILTERS.items()})
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


def check_source(file: str, source: str, within: Environment) -> nodes.Template:
    """Parse; refuse with file and line what templates may not do. Raises TemplateFault."""
    try:
        tree = within.parse(source, file)
    except TemplateSyntaxError as error:
        raise TemplateFault(file, error.lineno, str(error.message)) from None
    for node in tree.find_all(_REFUSED_NODES):
        if not (isinstance(node, nodes.Call) and block_called(node)):
            what = type(node).__name__
            raise TemplateFault(
                file, node.lineno, f"{what} is not allowed in templates: hand the value in as a variable"
            )
    for each in tree.find_all(nodes.Filter):
        if each.name in _REFUSED_FILTERS:
            raise TemplateFault(file, each.lineno, f"the filter `{each.name}` is not allowed in templates")
        if each.name not in within.filters:
            raise TemplateFault(file, each.lineno, f"there is no filter `{each.name}`")
    for attribute in tree.find_all(nodes.Getattr):
        if attribute.attr.startswith("_") or attribute.attr in {"format", "format_map"}:
            raise TemplateFault(file, attribute.lineno, f"the name {attribute.attr!r} is not allowed in templates")
    for name in tree.find_all(nodes.Name):
        if name.name.startswith("_"):
            raise TemplateFault(file, name.lineno, f"the name {name.name!r} is not allowed in templates")
    return tree


def block_called(node: nodes.Node) -> str | None:
    """`super` or the block's name for `super()` and `self.block()` without arguments: the only calls there are."""
    if not isinstance(node, nodes.Call) or node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
        return None
    called = node.node
    if isinstance(called, nodes.Getattr) and isinstance(called.node, nodes.Name) and called.node.name == "self":
        return called.attr
    return "super" if isinstance(called, nodes.Name) and called.name == "super" else None
