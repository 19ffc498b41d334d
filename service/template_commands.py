"""`postroom template list | new | check | render | send-test`: what template authors do on their machine.

All but the last read the templates folder (POSTROOM_TEMPLATES_DIR, or --dir) and need no service; `send-test` asks a
running one, so that the test goes the way of every message.
"""

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

from service import settings as configuration
from service.app import templates_directory
from service.clock import SYSTEM
from service.errors import ConfigurationError, FieldProblem, TemplateRenderError, TemplateVariablesInvalid
from service.mail.lint import Finding
from service.mail.render import Rendered, Template
from service.mail.template import NAME, TemplateFault
from service.settings import Settings
from service.spool.check import check_template, fault_finding
from service.spool.folder import Folder
from service.spool.scaffold import scaffold
from service.telemetry import configure_logging

_HTTP_TIMEOUT = 30.0  # seconds


def register(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Any, words: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=words, description=words)
        command.set_defaults(run=run)
        command.add_argument("--dir", type=Path, help="templates folder (default POSTROOM_TEMPLATES_DIR)")
        return command

    add("list", _list, "Show the templates.")
    new = add("new", _new, "Write the files of a new template.")
    new.add_argument("name")
    check = add("check", _check, "Find faults: variables, alt texts, links, size, tags. Exit status 1 on errors.")
    check.add_argument("name", nargs="*", help="default: all")
    check.add_argument("--json", action="store_true", help="one JSON object for each finding")
    render = add("render", _render, "Render a template with its sample data.")
    render.add_argument("name")
    render.add_argument("--locale")
    render.add_argument("--variables", type=Path, help="JSON file; default: the template's sample")
    render.add_argument("--part", choices=("html", "text", "subject"), default="html")
    send = add("send-test", _send_test, "Send a template with its sample data, by a running service.")
    send.add_argument("name")
    send.add_argument("--from", dest="from_", required=True, metavar="ADDRESS")
    send.add_argument("--to", required=True, action="append", metavar="ADDRESS")
    send.add_argument("--locale")
    send.add_argument("--variables", type=Path, help="JSON file; default: the template's sample")
    send.add_argument("--url", help="the service (default: this machine, the port of POSTROOM_PORT or 8000)")
    send.add_argument("--key-file", type=Path, help="file with an API key; default: the variable POSTROOM_API_KEY")


def _settings(chosen: argparse.Namespace) -> Settings:
    configure_logging("error", "console")
    return configuration.load(**({"templates_dir": chosen.dir} if chosen.dir else {}))


def _folder(chosen: argparse.Namespace) -> tuple[Settings, Folder, list[TemplateFault]]:
    settings = _settings(chosen)
    folder = Folder(templates_directory(settings))
    return settings, folder, folder.read()


def _list(chosen: argparse.Namespace) -> int:
    _, folder, faults = _folder(chosen)
    broken = [name for name in folder.names() if name not in folder.templates] if faults else []
    for name in sorted({*folder.templates, *broken}):
        if (template := folder.templates.get(name)) is not None:
            print(f"{name}  {template.digest[:10]}  {', '.join(template.locales)}  {template.description}")
        else:
            print(f"{name}  BROKEN")
    for fault in faults:
        print(f"postroom: {fault}", file=sys.stderr)
    return 1 if faults else 0


def _new(chosen: argparse.Namespace) -> int:
    if NAME.fullmatch(chosen.name) is None:
        raise ConfigurationError("a template's name is lower-case letters, digits and hyphens, at most 64")
    folder = chosen.dir or configuration.load().templates_dir or Path("templates")
    home = folder / chosen.name
    if home.exists():
        raise ConfigurationError(f"{home} is there already")
    try:
        for path, text in scaffold(chosen.name).items():
            file = home / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            print(file)
    except OSError as error:
        raise ConfigurationError(f"{home}: {error.strerror}") from None
    return 0


def _check(chosen: argparse.Namespace) -> int:
    settings, folder, faults = _folder(chosen)
    findings = [fault_finding(fault) for fault in faults]
    unknown = set(chosen.name) - set(folder.templates) - {finding.file.partition("/")[0] for finding in findings}
    if unknown:
        raise ConfigurationError(f"there is no template {', '.join(sorted(unknown))} in {folder.path}")
    for name, template in folder.templates.items():
        if not chosen.name or name in chosen.name:
            findings += check_template(template, lambda each, locale: _rendered(each, locale, settings))
    if chosen.name:
        findings = [each for each in findings if any(_of(each, name) for name in chosen.name)]
    for finding in findings:
        print(_line(finding, as_json=chosen.json))
    errors = sum(finding.severity == "error" for finding in findings)
    print(f"{errors} errors, {len(findings) - errors} warnings", file=sys.stderr)
    return 1 if errors else 0


def _of(finding: Finding, name: str) -> bool:
    return finding.file.startswith((f"{name}/", f"{name} (", "_layouts/"))


def _line(finding: Finding, *, as_json: bool) -> str:
    if as_json:
        fields = {name: getattr(finding, name) for name in ("rule", "severity", "file", "line", "detail")}
        return json.dumps(fields, ensure_ascii=False)
    line = f":{finding.line}" if finding.line else ""
    return f"{finding.file}{line}: {finding.severity}: {finding.rule}: {finding.detail}"


def _rendered(template: Template, locale: str | None, settings: Settings, variables: Any = None) -> Rendered:
    return template.render(
        template.sample(locale) if variables is None else variables,
        locale,
        deadline=SYSTEM.monotonic() + settings.render_timeout,
        monotonic=SYSTEM.monotonic,
        max_bytes=settings.max_rendered_bytes,
        timezone=settings.timezone,
    )


def _variables(chosen: argparse.Namespace) -> Any:
    if chosen.variables is None:
        return None
    try:
        return json.loads(chosen.variables.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"--variables: {chosen.variables}: {error}") from None


def _render(chosen: argparse.Namespace) -> int:
    settings, folder, faults = _folder(chosen)
    template = folder.templates.get(chosen.name)
    if template is None:
        own = [str(fault) for fault in faults if fault.file.startswith((f"{chosen.name}/", "_layouts/"))]
        there = f"there is no template {chosen.name}; there are {', '.join(folder.templates) or 'none'}"
        raise ConfigurationError("; ".join(own) or there)
    variables = template.sample(chosen.locale) if chosen.variables is None else _variables(chosen)
    if problems := template.check(variables, ""):
        raise TemplateVariablesInvalid(_sentence(problems))
    try:
        print(getattr(_rendered(template, chosen.locale, settings, variables), chosen.part) or "")
    except TemplateRenderError as error:
        raise TemplateRenderError(f"{chosen.name}: {error.errors[0].detail}") from None
    return 0


def _sentence(problems: Iterable[FieldProblem]) -> str:
    return "; ".join(f"{each.pointer}: {each.detail}" for each in problems)


def _send_test(chosen: argparse.Namespace) -> int:
    url = chosen.url or _default_url()
    body = {"from": chosen.from_, "to": chosen.to, "locale": chosen.locale, "variables": _variables(chosen)}
    headers = {"Content-Type": "application/json"}
    if key := _key(chosen):
        headers["Authorization"] = f"Bearer {key}"
    try:
        request = urllib.request.Request(  # noqa: S310 - the operator names the service
            f"{url.rstrip('/')}/templates/{quote(chosen.name, safe='@')}/send-test",
            json.dumps({name: value for name, value in body.items() if value is not None}).encode(),
            headers,
        )
        with urllib.request.urlopen(request, timeout=_HTTP_TIMEOUT) as response:  # noqa: S310
            print(response.read().decode())
    except urllib.error.HTTPError as error:
        hint = " (--key-file FILE, or the variable POSTROOM_API_KEY, gives a key)" if error.code == 401 else ""
        raise ConfigurationError(f"{error.code}: {_told(error.read())}{hint}") from None
    except OSError as error:
        why = _reason(error)
        raise ConfigurationError(
            f"{url} does not answer: {why}. Is the service running? --url names another."
        ) from None
    except (ValueError, HTTPException) as error:  # ValueError: no URL, or a key that is no header
        raise ConfigurationError(f"--url: {url}: {error}") from None
    return 0


def _default_url() -> str:
    """The service that the same settings start on this machine."""
    return f"http://127.0.0.1:{configuration.load().port or 8000}"


def _reason(error: OSError) -> str:
    """Why a connection failed, without Python's names."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, OSError):
        return "no answer in time" if isinstance(reason, TimeoutError) else (reason.strerror or str(reason)).lower()
    return str(reason)


def _key(chosen: argparse.Namespace) -> str:
    if chosen.key_file is None:
        return os.environ.get("POSTROOM_API_KEY", "")
    try:
        return str(chosen.key_file.read_text(encoding="utf-8-sig").strip())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--key-file: {chosen.key_file}: {error}") from None


def _told(body: bytes) -> str:
    """A problem document (RFC 9457) as a sentence; what is none, as it is."""
    try:
        problem = json.loads(body)
        faults = [f"{each['pointer']}: {each['detail']}" for each in problem.get("errors", ())]
        return "; ".join(faults) or str(problem["detail"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return body[:500].decode("utf-8", "replace")
