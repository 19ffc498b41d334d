"""/docs: Swagger UI from a Python package, so that it needs no internet, under a strict policy."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Postroom API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="docs/assets/swagger-ui.css"><link rel="stylesheet" href="docs/assets/postroom.css">
</head><body><div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script><script src="docs/assets/postroom.js"></script>
</body></html>
"""
_SCRIPT = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, docExpansion: "list", defaultModelsExpandDepth: 0,
  displayRequestDuration: true, tryItOutEnabled: true, validatorUrl: null, persistAuthorization: true
});
"""
_STYLE = ".swagger-ui .topbar { display: none } .swagger-ui .info { margin: 28px 0 18px } body { margin: 0 }\n"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {"css": "text/css", "js": "text/javascript"}


def docs_routes() -> list[Route]:
    """The page and its assets."""
    return [Route("/docs", _page), Route("/docs/assets/{name}", _asset)]


async def _page(_: Request) -> Response:
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"})


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    own = {"postroom.js": _SCRIPT, "postroom.css": _STYLE}
    if name in own:
        content: bytes | str = own[name]
    elif name in {"swagger-ui.css", "swagger-ui-bundle.js"}:
        content = files("fastapi_offline").joinpath("static", name).read_bytes()
    else:
        return Response(status_code=404)
    headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=_TYPES[name.rpartition(".")[2]], headers=headers)
