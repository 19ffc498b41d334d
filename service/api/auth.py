"""Who asks: the bearer key, its scopes; or anybody, where that was said aloud."""

from starlette.requests import Request

from service.api.context import Context
from service.errors import InsufficientScope, MissingApiKey
from service.spool.values import SCOPES, Caller

_READING = {"GET", "HEAD"}
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


async def authorise(request: Request, context: Context, scope: str) -> Caller:
    """The caller. Raises MissingApiKey, InvalidApiKey, InsufficientScope."""
    if context.settings.auth == "none":
        _refuse_other_sites(request)
        return ANYBODY
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise MissingApiKey
    caller = await context.keys.authenticate(token.strip())
    if scope not in caller.scopes:
        raise InsufficientScope(f"This operation needs the scope `{scope}`.")
    return caller
