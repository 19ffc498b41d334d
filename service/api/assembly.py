"""The FastAPI application, assembled from the operation table."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.auth import ANYBODY, authorise
from service.api.context import Context
from service.api.docs_page import docs_routes
from service.api.middleware import Around
from service.api.openapi import document
from service.api.operations import Call, Operation
from service.api.problems import problem_response
from service.api.table import OPERATIONS
from service.errors import InternalError, MethodNotAllowed, NotFound, PostroomError, QueueFull, RequestError
from service.telemetry import Log, Metrics, bind_message, get_logger

log = get_logger()
_LONGEST_ID = 40  # characters of what may be no id at all
_BUSY = "Sending"
_NOT_HERE = "This process has the role `sender` and takes no mail: ask one of the role `api` or `all`."
_NO_PATH = "There is no such path: a message goes to POST /send; /docs names every operation."


def build_app(context: Context) -> FastAPI:
    """The application of one process. A sender answers only what orchestrators and monitors ask."""
    # a redirect would name the host that the request claims, and most clients drop the body on their way there
    app = FastAPI(title="Postroom", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    for operation in OPERATIONS:
        if context.settings.role != "sender" or operation.tag == "Operation":
            # a plain route: the handlers read their requests by themselves, so FastAPI has nothing to solve for them
            app.add_route(
                _routed(operation.path), _endpoint(operation, context), methods=[operation.method], name=operation.id
            )
    if context.settings.role != "sender":
        _count_from_zero(context.metrics)
    text = to_json(document())

    async def openapi(_: Request) -> Response:
        return Response(text, media_type="application/json")

    app.add_route("/openapi.json", openapi, include_in_schema=False)
    app.router.routes.extend(docs_routes())
    app.add_exception_handler(
        HTTPException, _http_exception(_NOT_HERE if context.settings.role == "sender" else _NO_PATH)
    )
    app.add_exception_handler(Exception, _unexpected)
    return app


def around(app: FastAPI, context: Context) -> ASGIApp:
    """The application, and what is done for each request before it is asked."""
    return Around(app, context, _direct(context))


def _routed(path: str) -> str:
    """The path as the router reads it: the local part of an address may hold a slash (RFC 5322 3.2.3)."""
    return path.replace("{email}", "{email:path}")


def _count_from_zero(metrics: Metrics) -> None:
    """What alerts ask for begins at zero: Prometheus sees no increase in a series that begins at one."""
    metrics.refused.labels(QueueFull.code)
    for operation in OPERATIONS:
        for status in {error.status for error in operation.all_errors if error.status >= 500}:
            metrics.requests.labels(operation.method, operation.path, str(status))


def _direct(context: Context) -> dict[tuple[str, str], ASGIApp]:
    """The endpoints that get most of the requests, by method and path: nothing stands between them and `Around`."""
    found: dict[tuple[str, str], ASGIApp] = {}
    for operation in OPERATIONS:
        if operation.tag == _BUSY and context.settings.role != "sender" and "{" not in operation.path:
            found[operation.method, operation.path] = _plain(_endpoint(operation, context))
    return found


def _plain(endpoint: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive))
        await response(scope, receive, send)

    return app


def _endpoint(operation: Operation, context: Context) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        request.state.route = operation.path
        request_id: str = request.state.request_id
        if operation.path.startswith("/messages/{id}") and request.path_params["id"].startswith("msg_"):
            bind_message(request.path_params["id"][:_LONGEST_ID])
        try:
            caller = ANYBODY if operation.scope is None else await authorise(request, context, operation.scope)
            return await operation.handler(Call(request, context, caller, request_id))
        except PostroomError as error:
            if isinstance(error, (RequestError, QueueFull)):
                context.metrics.refused.labels(error.code).inc()
            return _problem(request, error, request_id)
        except Exception as error:
            log.error(Log.REQUEST_FAILED, route=operation.path, exc_info=error)
            return _problem(request, InternalError(), request_id)

    endpoint.__name__ = operation.id
    return endpoint


def _problem(request: Request, error: PostroomError, request_id: str, headers: Any = None) -> Response:
    return problem_response(error, request.url.path, request_id, headers)


def _http_exception(no_path: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kinds: dict[int, PostroomError] = {404: NotFound(no_path), 405: MethodNotAllowed()}
        problem = kinds.get(error.status_code) or InternalError()
        headers = _allow(request) if error.status_code == 405 else error.headers
        return _problem(request, problem, request.state.request_id, headers)

    return answer


def _allow(request: Request) -> dict[str, str]:
    """RFC 9110 section 15.5.6: all methods of the path, of which each has a route of its own."""
    routes = [each for each in request.app.routes if isinstance(each, Route)]
    fitting = [each for each in routes if each.matches(request.scope)[0] is not Match.NONE]
    return {"Allow": ", ".join(sorted({method for each in fitting for method in each.methods or ()}))}


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error(Log.REQUEST_FAILED, exc_info=error)
    return _problem(request, InternalError(), request.state.request_id)
