"""The inbox pages: what the capture relay took, made safe to look at.

The html of a mail is shown in a sandboxed frame whose own policy allows no script, no form, no remote content;
images come only from the mail itself. Everything else is plain pages with a strict policy, no build step, nothing
from outside.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from service.capture.mailbox import CapturedMail, Mailbox
from service.clock import rfc3339

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "pages"), autoescape=True, undefined=StrictUndefined
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; frame-src 'self'; form-action 'self';"
    " base-uri 'none'; connect-src 'self'; frame-ancestors 'none'"
)
_MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src data: 'self'; style-src"
    " 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_CID = re.compile(r"""cid:([^"'\s)<>]+)""")
_HTTP_EQUIV = re.compile("http-equiv", re.I)  # the attribute by which a page leads elsewhere
# a policy refuses what a frame would load, yet browsers connect to its host before they ask the policy
_FRAMES = re.compile(r"<(/?)(iframe|frame|frameset|object|embed)\b", re.I)
_IMAGES = {"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"}  # never SVG: it is a document


def inbox_app(mailbox: Mailbox) -> Starlette:
    """The pages, to be mounted at /inbox."""
    pages = _Pages(mailbox)
    return Starlette(
        routes=[
            Route("/", pages.index),
            Route("/clear", pages.clear, methods=["POST"]),
            Route("/assets/{name}", pages.asset),
            Route("/api/messages", pages.api_list),
            Route("/api/messages", pages.api_clear, methods=["DELETE"]),
            Route("/api/messages/{id}", pages.api_mail),
            Route("/{id}", pages.mail),
            Route("/{id}/html", pages.html),
            Route("/{id}/source", pages.source),
            Route("/{id}/parts/{number:int}", pages.part),
        ]
    )


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _size(octets: int) -> str:
    return (
        f"{octets} B"
        if octets < 1024
        else f"{octets / 1024:.1f} KiB"
        if octets < 1024**2
        else f"{octets / 1024**2:.1f} MiB"
    )


class _Pages:
    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def _page(self, name: str, request: Request, **values: Any) -> HTMLResponse:
        base = request.scope.get("root_path", "")
        text = _PAGES.get_template(name).render(base=base, time=_time, rfc3339=rfc3339, size=_size, **values)
        return HTMLResponse(text, headers={**_HEADERS, "Content-Security-Policy": _PAGE_POLICY})

    def _missing(self) -> Response:
        return PlainTextResponse("This mail is not here (any more).", 404, headers=_HEADERS)

    async def index(self, request: Request) -> Response:
        words = request.query_params.get("q", "")
        return self._page(
            "index.html",
            request,
            mails=self._mailbox.search(words)[:200],
            q=words,
            total=len(self._mailbox),
            origin=f"{request.url.scheme}://{request.url.netloc}",
        )

    async def clear(self, request: Request) -> Response:
        if not _same_origin(request):
            return PlainTextResponse("Only from this page.", 403, headers=_HEADERS)
        self._mailbox.clear()
        return RedirectResponse(request.scope.get("root_path", "") + "/", 303)

    async def mail(self, request: Request) -> Response:
        mail = self._mailbox.get(request.path_params["id"])
        if mail is None:
            return self._missing()
        view = request.query_params.get("view", "html" if mail.body("text/html") is not None else "text")
        width = request.query_params.get("width", "full")
        headers = [(name, mail.header(name)) for name in dict.fromkeys(mail.message.keys())]
        return self._page(
            "mail.html",
            request,
            mail=mail,
            view=view if view in {"html", "text", "headers", "attachments", "source"} else "text",
            width=width if width in {"320", "600", "full"} else "full",
            text=mail.body("text/plain"),
            has_html=mail.body("text/html") is not None,
            headers=headers,
            source=mail.data.decode("utf-8", "replace"),
        )

    async def html(self, request: Request) -> Response:
        mail = self._mailbox.get(request.path_params["id"])
        html = mail.body("text/html") if mail else None
        if mail is None or html is None:
            return self._missing()
        base = request.scope.get("root_path", "")
        numbers = {part.content_id: part.number for part in reversed(mail.parts)}
        shown = _CID.sub(lambda found: _cid_path(mail, numbers.get(found[1]), base), html)
        shown = _FRAMES.sub(r"<\1removed-\2", _HTTP_EQUIV.sub("removed-http-equiv", shown))
        return HTMLResponse(shown, headers={**_HEADERS, "Content-Security-Policy": _MAIL_POLICY})

    async def source(self, request: Request) -> Response:
        mail = self._mailbox.get(request.path_params["id"])
        if mail is None:
            return self._missing()
        disposition = f'attachment; filename="{mail.id}.eml"'
        return Response(
            mail.data, media_type="message/rfc822", headers={**_HEADERS, "Content-Disposition": disposition}
        )

    async def part(self, request: Request) -> Response:
        mail = self._mailbox.get(request.path_params["id"])
        number = request.path_params["number"]
        part = next((part for part in mail.parts if part.number == number), None) if mail else None
        if part is None:
            return self._missing()
        inline = part.content_type in _IMAGES
        name = quote(part.filename or f"part-{number}", safe="")
        return Response(
            part.data,
            media_type=part.content_type if inline else "application/octet-stream",
            headers={
                **_HEADERS,
                "Content-Disposition": f"{'inline' if inline else 'attachment'}; filename*=UTF-8''{name}",
                "Content-Security-Policy": "default-src 'none'; sandbox",
            },
        )

    async def asset(self, request: Request) -> Response:
        types = {"inbox.css": "text/css", "inbox.js": "text/javascript", "local-times.js": "text/javascript"}
        name = request.path_params["name"]
        if name not in types:
            return self._missing()
        text = (Path(__file__).parent / "pages" / name).read_text(encoding="utf-8")
        return Response(text, media_type=types[name], headers=_HEADERS)

    async def api_list(self, request: Request) -> Response:
        mails = self._mailbox.search(request.query_params.get("q", ""))[:200]
        return JSONResponse(
            {"total": len(self._mailbox), "messages": [_summary(mail) for mail in mails]}, headers=_HEADERS
        )

    async def api_mail(self, request: Request) -> Response:
        mail = self._mailbox.get(request.path_params["id"])
        if mail is None:
            return JSONResponse({"detail": "not found"}, 404, headers=_HEADERS)
        files = [
            {"filename": part.filename, "content_type": part.content_type, "size": len(part.data)}
            for part in mail.attachments
        ]
        more = {
            "text": mail.body("text/plain"),
            "html": mail.body("text/html"),
            "headers": {name: mail.header(name) for name in mail.message},
            "attachments": files,
        }
        return JSONResponse({**_summary(mail), **more}, headers=_HEADERS)

    async def api_clear(self, request: Request) -> Response:
        if not _same_origin(request):
            return JSONResponse({"detail": "only from this origin"}, 403, headers=_HEADERS)
        self._mailbox.clear()
        return Response(status_code=204, headers=_HEADERS)


def _summary(mail: CapturedMail) -> dict[str, Any]:
    return {
        "id": mail.id,
        "received_at": rfc3339(mail.received_at),
        "envelope_from": mail.envelope_from,
        "recipients": list(mail.recipients),
        "from": mail.header("from"),
        "to": mail.header("to"),
        "subject": mail.header("subject"),
        "message_id": mail.header("message-id"),
        "size": mail.size,
    }


def _cid_path(mail: CapturedMail, number: int | None, base: str) -> str:
    return "about:blank" if number is None else f"{base}/{mail.id}/parts/{number}"


def _same_origin(request: Request) -> bool:
    """Whether a changing request comes from this page or from no browser at all (Fetch Metadata, else Origin)."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")
