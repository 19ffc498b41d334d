"""The HTTP edge: parse, authorise, call one use case, shape the answer. No SQL, no SMTP."""

from service.api.assembly import around, build_app

__all__ = ["around", "build_app"]
