"""`make demo`: a service of its own in a temporary folder sends the article's example and every template over real SMTP.

Each message's timeline is printed as the delivery log tells it. Exits 0 when every message was sent and captured.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from service import settings as configuration
from service.app import Service
from service.clock import rfc3339
from service.mail.address import parse_mailbox
from service.mail.lifecycle import State
from service.mail.render import Template
from service.spool.values import SCOPES, Caller, Submission, TemplateUse

_SECONDS = 10.0
_CALLER = Caller("default", "demo", frozenset(SCOPES))


def article() -> Submission:
    """The message the project grew from: from a 163 mailbox to a QQ mailbox, in Chinese."""
    return Submission(
        from_=parse_mailbox("zoucz <zouchengzhuo@163.com>", "#/from"),
        to=(parse_mailbox("zoucz <405966530@qq.com>", "#/to"),),
        subject="测试SMTP发送邮件",
        text="这是一封测试邮件",
        html="<p>这是一封<b>测试</b>邮件</p>",
    )


def of_template(service: Service, template: Template, locale: str) -> Submission:
    """A template with its sample data and sample attachments."""
    return Submission(
        from_=parse_mailbox("Postroom demo <demo@postroom.example>", "#/from"),
        to=(parse_mailbox("Ada Lovelace <ada@example.org>", "#/to"),),
        template=TemplateUse(template.name, template.sample(locale), locale),
        attachments=service.templates.sample_attachments(template, service.settings.max_message_bytes),
        tags=(("template", template.name),),
    )


async def demo() -> int:
    """Run it. The exit status."""
    with tempfile.TemporaryDirectory(prefix="postroom-demo-") as folder:
        url = f"sqlite:///{Path(folder) / 'demo.db'}"
        settings = configuration.load(database_url=url, auth="none", recipient_limit="off", role="all")
        service = await Service.start(settings, capture=True)
        try:
            return await _send_all(service)
        finally:
            await service.stop()


async def _send_all(service: Service) -> int:
    submissions = [("the article's example", article())]
    submissions += [
        (f"{loaded.label}, {locale}", of_template(service, loaded.template, locale))
        for loaded in [await service.templates.get(name) for name in service.templates.in_folder()]
        for locale in loaded.template.locales
    ]
    sent = 0
    for title, submission in submissions:
        sent += await _send(service, title, submission)
    captured = len(service.capture.mailbox) if service.capture else 0
    print(f"\n{sent} of {len(submissions)} messages sent over SMTP, {captured} captured.")
    return 0 if sent == len(submissions) == captured else 1


async def _send(service: Service, title: str, submission: Submission) -> bool:
    shown: dict[str, Any] = {}

    def shape(prepared: Any) -> bytes:
        shown["message"] = prepared.message
        return b"{}"

    await service.submitter.submit(lambda: submission, _CALLER, None, shape)
    message = shown["message"]
    view = await service.messages.wait("default", message.id, _SECONDS)
    print(f"\n{title}: {view.subject}")
    for event in await service.messages.events("default", message.id):
        data = event.data
        words = " ".join(str(data[name]) for name in ("code", "enhanced_code", "text", "session") if name in data)
        print(f"  {rfc3339(event.at)}  {event.type:<9} {event.recipient or ''}  {words}")
    return all(recipient.state is State.SENT for recipient in view.recipients)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(demo()))
