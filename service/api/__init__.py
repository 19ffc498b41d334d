"""The HTTP edge: parse, authorise, call one use case, shape the answer. No SQL, no SMTP."""

from service.api.assembly import build_app

__all__ = ["build_app"]
