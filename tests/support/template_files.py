"""The files of the starter templates, as the composer's input."""

from pathlib import Path
from typing import Any

from service.mail.render import Template, compile_template
from service.mail.template import parse_files

ROOT = Path(__file__).resolve().parents[2] / "templates"
STARTERS = sorted(path.parent.name for path in ROOT.glob("*/template.toml"))


def starter_files(name: str) -> dict[str, str]:
    """Path inside the template's folder -> text, with the layouts."""
    home = ROOT / name
    files = {
        path.relative_to(home).as_posix(): path.read_text()
        for path in home.rglob("*")
        if path.suffix in {".j2", ".toml", ".mjml"}
    }
    return files | {f"_layouts/{path.name}": path.read_text() for path in (ROOT / "_layouts").glob("*.j2")}


def template_of(head: str = "", html: str = "<p>x</p>", **files: Any) -> Template:
    """A template from a few words. `head` is added to a template.toml that has a subject."""
    made = {"template.toml": 'subject = "s"\n' + head, "html.j2": html}
    return compile_template(parse_files("t", made | {name.replace("__", "/"): text for name, text in files.items()}))


def render(template: Template, variables: dict[str, Any] | None = None, locale: str | None = None) -> Any:
    """Rendered without limits that matter."""
    values = template.sample(locale) if variables is None else variables
    return template.render(values, locale, deadline=9, monotonic=lambda: 0.0, max_bytes=10**7)
