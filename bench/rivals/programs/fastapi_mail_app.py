"""fastapi-mail in BackgroundTasks: accepted into memory, sent after the answer. Runs in the rivals' environment."""

import asyncio
import os
from pathlib import Path

from fastapi import BackgroundTasks, FastAPI
from fastapi_mail import ConnectionConfig, FastMail, MessageSchema, MessageType
from jinja2 import Environment, FileSystemLoader
from pydantic import BaseModel

TEMPLATES = Path(os.environ["BENCH_TEMPLATES"])
SECURE = "BENCH_CA_FILE" in os.environ
ENVIRONMENT = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)


class Configuration(ConnectionConfig):
    """With an environment that outlives a message: its own makes one for each, and compiles the templates anew."""

    def template_engine(self) -> Environment:
        return ENVIRONMENT


mail = FastMail(
    Configuration(
        MAIL_USERNAME=os.environ.get("BENCH_LOGIN", ""),
        MAIL_PASSWORD=os.environ.get("BENCH_SECRET", ""),
        MAIL_SERVER="127.0.0.1",
        MAIL_PORT=int(os.environ["BENCH_RELAY_PORT"]),
        MAIL_FROM="hello@lantern.example",
        MAIL_FROM_NAME="Lantern",
        MAIL_STARTTLS=SECURE,
        MAIL_SSL_TLS=False,
        USE_CREDENTIALS=SECURE,
        LOCAL_HOSTNAME="bench.example",
        TEMPLATE_FOLDER=TEMPLATES,
    )
)
app = FastAPI(openapi_url=None)
room = asyncio.Semaphore(int(os.environ["BENCH_CONNECTIONS"]))


class Asked(BaseModel):
    """A request."""

    id: str
    to: str
    name: str
    code: str
    lines: list[str]


async def deliver(asked: Asked) -> None:
    """Send one, not too many at once."""
    message = MessageSchema(
        subject=f"Your receipt {asked.code}",
        recipients=[asked.to],
        template_body=asked.model_dump(),
        subtype=MessageType.html,
        headers={"X-Bench-Id": asked.id},
    )
    async with room:
        await mail.send_message(message, html_template="receipt.html", plain_template="receipt.txt")


@app.post("/send", status_code=202)
async def send(asked: Asked, background: BackgroundTasks) -> dict[str, str]:
    """Accept one."""
    background.add_task(deliver, asked)
    return {"status": "queued"}
