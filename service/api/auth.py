"""Who asks: the bearer key, its scopes; or anybody, where that was said aloud."""

from starlette.requests import Request

from service.api.context import Context
from service.errors import InsufficientScope, MissingApiKey
from service.spool.values import SCOPES, Caller

ANYBODY = Caller("default", "anybody", frozenset(SCOPES))


async def authorise(request: Request, context: Context, scope: str) -> Caller:
    """The caller. Raises MissingApiKey, InvalidApiKey, InsufficientScope."""
    if context.settings.auth == "none":
        return ANYBODY
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise MissingApiKey
    caller = await context.keys.authenticate(token.strip())
    if scope not in caller.scopes:
        raise InsufficientScope(f"This operation needs the scope `{scope}`.")
    return caller
