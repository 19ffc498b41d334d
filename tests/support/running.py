"""A whole service in this process, with an HTTP client on it."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from service import settings as configuration
from service.app import Service
from service.clock import SYSTEM, Clock
from service.tracing import Tracing


@contextlib.asynccontextmanager
async def running(
    folder: Path, *, capture: bool = True, clock: Clock = SYSTEM, tracing: Tracing | None = None, **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    """The service on a database in `folder`, without keys unless told otherwise."""
    given = {
        "database_url": f"sqlite:///{folder}/post.db",
        "auth": "none",
        "allowed_hosts": ("postroom.test",),
        "drain_grace": 2.0,
        "drain_delay": 0.0,
        **settings,
    }
    service = await Service.start(configuration.load(**given), capture=capture, clock=clock, tracing=tracing)
    transport = httpx.ASGITransport(service.http())  # type: ignore[arg-type]
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://postroom.test") as client:
            yield client, service
    finally:
        await service.stop()


ARTICLE = {
    "from": "zoucz <zouchengzhuo@163.com>",
    "to": "zoucz <405966530@qq.com>",
    "subject": "测试SMTP发送邮件",
    "text": "这是一封测试邮件\n",
    "html": "<p>这是一封<b>测试</b>邮件</p>\n",
}
