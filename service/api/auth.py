"""Who asks: the bearer key, its scopes; or anybody, where that was said aloud."""

from starlette.requests import Request

from service.api.context import Context
from service.errors import InsufficientScope, MissingApiKey
from service.spool.values import SCOPES, Caller

_READING = {"GET", "HEAD"}
_OTHERS_KEYS = ("X-Api-Key", "Api-Key", "X-Postmark-Server-Token", "X-Auth-Token")  # where other mailers read a key
ANYBODY = Caller("default", "anybody", frozenset(SCOPES))


def _refuse_other_sites(request: Request) -> None:
    """Where no key is asked for, a browser would hand in what any page tells it to, without asking when the body is empty.

    By Fetch Metadata, else by Origin; what is no browser sends neither. Raises InsufficientScope.
    """
    if request.method in _READING:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    own = site in {"same-origin", "none"} if site else origin is None or _host(origin) == request.headers.get("host")
    if not own:
        raise InsufficientScope("A page of another site may change nothing where no key is asked for.")


def _host(origin: str) -> str:
    return origin.partition("://")[2]


def _not_read(request: Request) -> str | None:
    """Which header a client of another mailer has put its key into; never what stands in it."""
    kind = request.headers.get("authorization", "").partition(" ")[0].lower()
    if kind and kind != "bearer":
        what = "HTTP Basic" if kind == "basic" else "This scheme of the Authorization header"
        return f"{what} is not read. {MissingApiKey.remedy}"
    found = next((name for name in _OTHERS_KEYS if name in request.headers), None)
    return None if found is None else f"The header {found} is not read. {MissingApiKey.remedy}"


async def authorise(request: Request, context: Context, scope: str) -> Caller:
    """The caller. Raises MissingApiKey, InvalidApiKey, InsufficientScope."""
    if context.settings.auth == "none":
        _refuse_other_sites(request)
        return ANYBODY
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise MissingApiKey(_not_read(request))
    caller = await context.keys.authenticate(token.strip())
    if scope not in caller.scopes:
        raise InsufficientScope(f"This operation needs the scope `{scope}`.")
    return caller
