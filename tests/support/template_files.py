"""The files of the starter templates and of small ones, and what they come to."""

from pathlib import Path
from typing import Any

from service.mail.render import Rendered, Template, compile_template
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


def template_of(head: str = "", html: str | None = "<p>x</p>", **files: Any) -> Template:
    """A template from a few words. `head` is added to a template.toml that has a subject; html None: give another."""
    made = {"template.toml": 'subject = "s"\n' + head} | ({} if html is None else {"html.j2": html})
    return compile_template(parse_files("t", made | {name.replace("__", "/"): text for name, text in files.items()}))


def write(folder: Path, name: str, files: dict[str, str]) -> None:
    """Put a template's files below a templates folder."""
    for path, text in files.items():
        file = folder / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def render(template: Template, variables: dict[str, Any] | None = None, locale: str | None = None) -> Rendered:
    """Rendered without limits that matter."""
    values = template.sample(locale) if variables is None else variables
    return template.render(values, locale, deadline=9, monotonic=lambda: 0.0, max_bytes=10**7)
