"""Which variables a template's sources use, as paths into its schema: `order.number`, `items[].title`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import nodes

from service.mail.lint import RULES, Finding
from service.mail.sandbox import environment
from service.mail.template import TemplateSource

Path = tuple[str, ...]  # "[]" stands for any element of a list
_EACH = "[]"
_JINJAS = {"loop", "self", "super", "caller", "true", "false", "none", "True", "False", "None"}


@dataclass(frozen=True, slots=True)
class Use:
    """A variable that stands in a source."""

    path: Path
    file: str
    line: int


def lint_sources(source: TemplateSource) -> list[Finding]:
    """Variables that are used and not declared, or declared and not used; languages without a text part."""
    uses = list(_uses(source))
    found = [
        _finding("undefined-variable", use.file, use.line, f"{_shown(use.path)} is not declared in [variables]")
        for use in uses
        if not _declared(source.schema, use.path)
    ]
    used = {use.path[0] for use in uses}
    found += [
        _finding("unused-variable", f"{source.name}/template.toml", None, f"{name} is required and used nowhere")
        for name in source.schema.get("required", ())
        if name not in used
    ]
    for locale, each in source.locales.items():
        if each.text is None:
            folder = "" if locale == source.default_locale else f"locales/{locale}/"
            found.append(_finding("missing-text", f"{source.name}/{folder}text.j2", None, "there is no text part"))
    return list(dict.fromkeys(found))


def _finding(rule: str, file: str, line: int | None, detail: str) -> Finding:
    return Finding(rule, RULES[rule][0], file, line, detail)


def _shown(path: Path) -> str:
    return ".".join(path).replace(".[]", "[]")


def _uses(source: TemplateSource) -> Iterator[Use]:
    parser = environment({}, html=True)
    for locale, each in source.locales.items():
        prefix = source.name if locale == source.default_locale else f"{source.name}/locales/{locale}"
        mjml = f"{prefix}/html.mjml".removeprefix(f"{source.name}/") in source.files
        html = "html.mjml" if mjml else "html.j2"
        for file, text in (("template.toml", each.subject), (html, each.html), ("text.j2", each.text or "")):
            yield from _walk(parser.parse(text), {}, f"{prefix}/{file}")
    for file, text in source.layouts.items():
        yield from _walk(parser.parse(text), {}, file)


def _walk(node: nodes.Node, known: dict[str, Path | None], file: str) -> Iterator[Use]:
    """`known`: names of this scope and the paths they stand for; None: not from the variables."""
    if isinstance(node, nodes.For):
        yield from _walk(node.iter, known, file)
        each = _path(node.iter, known)
        inner = dict(known)
        for name in node.target.find_all(nodes.Name) if not isinstance(node.target, nodes.Name) else [node.target]:
            inner[name.name] = (*each, _EACH) if each and name is node.target else None
        for child in (node.test, *node.body, *node.else_):
            if child is not None:
                yield from _walk(child, inner, file)
    elif isinstance(node, nodes.Name | nodes.Getattr | nodes.Getitem):
        path = _path(node, known)
        if path:
            yield Use(path, file, node.lineno)
        elif isinstance(node, nodes.Getattr | nodes.Getitem):
            yield from _children(node, known, file)
    else:
        yield from _children(node, known, file)


def _children(node: nodes.Node, known: dict[str, Path | None], file: str) -> Iterator[Use]:
    # what an if sets stays set after it; a with, a block or a template ends what stands in it
    scope = known if isinstance(node, nodes.If | nodes.Output) else dict(known)
    children = list(node.iter_child_nodes())
    if isinstance(node, nodes.With):
        for value in node.values:  # they don't see the targets
            yield from _walk(value, known, file)
        scope |= {target.name: None for target in node.targets if isinstance(target, nodes.Name)}
        children = node.body
    for child in children:
        yield from _walk(child, scope, file)
        if isinstance(child, nodes.Assign | nodes.AssignBlock):
            scope |= {name.name: None for name in child.find_all(nodes.Name) if name.ctx == "store"}


def _path(node: nodes.Node, known: Mapping[str, Path | None]) -> Path | None:
    if isinstance(node, nodes.Name):
        if node.ctx != "load" or node.name in _JINJAS:
            return None
        return known.get(node.name, (node.name,))
    if isinstance(node, nodes.Getattr):
        base = _path(node.node, known)
        return (*base, node.attr) if base else None
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        base = _path(node.node, known)
        step = node.arg.value
        return (*base, _EACH if isinstance(step, int) else str(step)) if base else None
    return None


def _declared(schema: Mapping[str, Any], path: Path) -> bool:
    """Whether a path can exist. Schemas that say it in other ways than `properties` and `items` are believed."""
    at: Any = schema
    for step in path:
        if not isinstance(at, dict) or set(at) & {"$ref", "anyOf", "oneOf", "allOf", "if"}:
            return True
        if step == _EACH:
            at = at.get("items")
        elif "properties" in at and step in at["properties"]:
            at = at["properties"][step]
        elif "properties" in at or at.get("additionalProperties") is False:
            return at.get("additionalProperties", False) is not False or "patternProperties" in at
        else:
            return True
    return True
