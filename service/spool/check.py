"""Everything that can be said about a template before it is sent: its sources, its sample, every language rendered."""

from collections.abc import Callable

from service.errors import FieldProblem, TemplateRefused, TemplateRenderError, pointer_step
from service.mail.lint import Finding, lint_html, lint_subject
from service.mail.render import Rendered, Template
from service.mail.template import TemplateFault
from service.mail.uses import lint_sources

Render = Callable[[Template, str], Rendered]


def check_template(template: Template, render: Render) -> list[Finding]:
    """All findings. `render(template, locale)` renders the sample."""
    findings = lint_sources(template.source)
    for locale in template.locales:
        where = f"{template.name} ({locale})"
        problems = template.check(template.sample(locale), "")
        findings += [
            Finding("sample-invalid", "error", where, None, f"{problem.pointer[2:]}: {problem.detail}")
            for problem in problems
        ]
        if problems:
            continue
        try:
            rendered = render(template, locale)
        except TemplateRenderError as error:
            findings.append(Finding("sample-invalid", "error", where, None, error.errors[0].detail))
            continue
        findings += lint_subject(rendered.subject, f"{where} subject")
        findings += lint_html(rendered.html, _shown_ids(rendered.html), file=f"{where} html")
    return findings


def _shown_ids(html: str) -> set[str]:
    """Which inline images a template needs is the caller's business: all that it names are taken as attached."""
    return {part.split('"')[0].split("'")[0] for part in html.split("cid:")[1:]}


def fault_finding(fault: TemplateFault) -> Finding:
    """A template that can't be compiled, as a finding."""
    return Finding("template-fault", "error", fault.file, fault.line, fault.why)


def fault_problem(fault: TemplateFault, *, inside: str = "") -> FieldProblem:
    """A fault as the API tells it: the file as pointer (without `inside`), the line in the sentence."""
    place = pointer_step(fault.file.removeprefix(inside))
    return FieldProblem(f"#/files/{place}", TemplateRefused.code, f"line {fault.line}: {fault.why}")
