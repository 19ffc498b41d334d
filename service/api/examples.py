"""Examples of the OpenAPI document. A test posts every request example and gets the documented status."""

from typing import Any

ID = "msg_01M86KP85SV3J083Y0N1904CWS"
AT = "2026-11-24T10:43:00.123Z"

ARTICLE = {
    "from": "zoucz <zouchengzhuo@163.com>",
    "to": "zoucz <405966530@qq.com>",
    "subject": "测试SMTP发送邮件",
    "text": "这是一封测试邮件",
    "html": "<p>这是一封<b>测试</b>邮件</p>",
}
TEMPLATED = {
    "from": {"email": "hello@example.com", "name": "Example"},
    "to": ["ada@example.org"],
    "template": {
        "name": "verify-email",
        "variables": {
            "product": "Example",
            "name": "Ada",
            "code": "481 920",
            "minutes": 10,
            "support": "help@example.com",
        },
        "locale": "en",
    },
    "tags": ["verification"],
    "priority": "high",
    "ttl": "10m",
}
FULL = {
    "from": "billing@example.com",
    "to": ["Ada Lovelace <ada@example.org>", {"email": "charles@example.org", "name": "Charles Babbage"}],
    "cc": "archive@example.com",
    "reply_to": "support@example.com",
    "subject": "Your invoice",
    "html": "<p>The invoice is attached.</p>",
    "attachments": [{"filename": "发票.pdf", "content": "JVBERi0xLjQK", "content_type": "application/pdf"}],
    "headers": {"X-Campaign": "invoices"},
    "tags": {"kind": "invoice"},
    "metadata": {"order": "4711"},
    "unsubscribe_url": "https://example.com/unsubscribe/4711",
    "delivery": "at_most_once",
}
BATCH = {
    "base": {"from": "hello@example.com", "subject": "News", "text": "Good news."},
    "messages": [{"to": "ada@example.org"}, {"to": "charles@example.org", "idempotency_key": "news-2"}],
}

ACCEPTED: dict[str, Any] = {
    "id": ID,
    "status": "queued",
    "message_id": "<01m86kp85sv3j083y0n1904cws@163.com>",
    "created_at": AT,
    "scheduled_at": None,
    "recipients": [{"email": "405966530@qq.com", "kind": "to", "status": "queued"}],
    "warnings": [],
}
BATCH_ACCEPTED = {
    "accepted": 1,
    "refused": 1,
    "results": [
        {"index": 0, "message": ACCEPTED},
        {
            "index": 1,
            "error": {
                "type": "urn:postroom:problem:validation_error",
                "title": "Validation failed",
                "status": 422,
                "detail": "Mend the fields named in `errors`.",
                "instance": "/messages/1",
                "code": "validation_error",
                "request_id": "req_01M86KP85SV3J083Y0N1904CWS",
                "errors": [
                    {"pointer": "#/to/0", "code": "invalid_address", "detail": "must have the form local@domain"}
                ],
            },
        },
    ],
}
PREVIEW = {
    "subject": "测试SMTP发送邮件",
    "html": "<p>这是一封<b>测试</b>邮件</p>",
    "text": "这是一封测试邮件",
    "headers": [{"name": "From", "value": "zoucz <zouchengzhuo@163.com>"}],
    "size": 1034,
    "recipients": [{"email": "405966530@qq.com", "kind": "to", "status": "queued"}],
    "relays": [{"name": "default", "envelope_from": "zouchengzhuo@163.com", "from_rewritten": False, "dkim": []}],
    "refusals": [
        {
            "name": "tencent",
            "errors": [{"pointer": "#/cc", "code": "cc_not_taken", "detail": "relay tencent takes no Cc"}],
        }
    ],
    "template": None,
    "warnings": [],
    "findings": [
        {
            "rule": "missing-alt",
            "severity": "error",
            "file": "html",
            "line": 3,
            "detail": "an image without alt (https://example.com/a.png)",
        }
    ],
}
MESSAGE: dict[str, Any] = {
    "id": ID,
    "status": "deferred",
    "message_id": "<01m86kp85sv3j083y0n1904cws@163.com>",
    "from": "zouchengzhuo@163.com",
    "envelope_from": "zouchengzhuo@163.com",
    "subject": "测试SMTP发送邮件",
    "template": None,
    "tags": {},
    "metadata": {},
    "priority": "normal",
    "delivery": "at_least_once",
    "relay": None,
    "size": 1034,
    "created_at": AT,
    "scheduled_at": None,
    "expires_at": "2026-11-28T10:43:00.123Z",
    "closed_at": None,
    "content_purged_at": None,
    "recipients": [
        {
            "email": "405966530@qq.com",
            "name": "zoucz",
            "kind": "to",
            "status": "deferred",
            "updated_at": "2026-11-24T10:43:00.300Z",
            "attempts": 1,
            "attempts_in_doubt": 0,
            "next_attempt_at": "2026-11-24T10:43:04.100Z",
            "held_back_by": "next attempt at 2026-11-24T10:43:04.100Z",
            "held_by": {"reason": "retry", "relay": None, "quota": None, "until": "2026-11-24T10:43:04.100Z"},
            "relay": "default",
            "class": "temporary",
            "last_reply": {"code": 450, "enhanced_code": "4.2.0", "text": "try later"},
            "provider_message_id": None,
        }
    ],
    "warnings": [],
}
EVENT = {
    "id": 17,
    "at": "2026-11-24T10:43:00.300Z",
    "type": "defer",
    "recipient": "405966530@qq.com",
    "attempt": 9,
    "data": {
        "relay": "default",
        "class": "temporary",
        "phase": "rcpt",
        "charged": True,
        "code": 450,
        "enhanced_code": "4.2.0",
        "text": "try later",
        "next_attempt_at": "2026-11-24T10:43:04.100Z",
        "session": "smtp.qq.com:465 TLSv1.3 AUTH LOGIN, message 1",
        "timings_ms": {"connect": 31.2, "auth": 12.9, "total": 40.4},
    },
}
TEMPLATE = {
    "name": "verify-email",
    "version": 1,
    "digest": "5f2c9a01b3c8e7d4f6a1b2c3d4e5f60718293a4b5c6d7e8f9012345678abcdef",
    "description": "A one-time code.",
    "locales": ["en", "zh-CN"],
    "default_locale": "en",
    "variables": {"type": "object", "required": ["code"], "properties": {"code": {"type": "string"}}},
    "samples": {"en": {"code": "481 920"}},
    "defaults": {"ttl": 600, "priority": "high", "unsubscribe": None},
}
TEMPLATE_VERSION = {
    "name": "verify-email",
    "version": 1,
    "digest": "5f2c9a01b3c8e7d4f6a1b2c3d4e5f60718293a4b5c6d7e8f9012345678abcdef",
    "created_at": AT,
}
TEMPLATE_FILES = {
    "template.toml": 'subject = "Hello {{ name }}"\n[variables]\nname = "string"\n[sample]\nname = "Ada"\n',
    "html.j2": '<!doctype html><html lang="en"><head><title>Hello</title></head><body><p>Hello {{ name }}</p></body></html>',
    "text.j2": "Hello {{ name }}\n",
}
CHECKED = {
    "ok": False,
    "findings": [
        {
            "rule": "missing-alt",
            "severity": "error",
            "file": "hello (en) html",
            "line": 12,
            "detail": "an image without alt (https://example.com/a.png)",
        }
    ],
}
RELOADED = {
    "templates": [{"name": "verify-email", "version": 2}],
    "refused": [
        {
            "pointer": "#/files/hello~1html.j2",
            "code": "template_refused",
            "detail": "line 7: the filter `safe` is not allowed in templates",
        }
    ],
}
SUPPRESSION = {
    "email": "gone@example.org",
    "reason": "bad_address",
    "origin": "delivery",
    "created_at": AT,
    "message": ID,
    "detail": "550 5.1.1 no such user",
    "category": None,
}
RELAY = {
    "name": "default",
    "host": "smtp.163.com",
    "port": 465,
    "tls": "implicit",
    "preset": "163",
    "account": "name@163.com@smtp.163.com",
    "same_account": ["newsletter"],
    "health": "broken",
    "reason": "auth-refused: 535 Error: authentication failed",
    "until": "2026-11-24T10:53:10.520Z",
    "connections": 0,
    "max_connections": 2,
    "in_flight": 0,
    "sent": 12,
    "last_reply": "250 Mail OK queued as smtp3,DcmowAA",
    "last_error": "auth: 535 Error: authentication failed: ",
    "troubles": [
        {
            "kind": "auth-refused",
            "at": "2026-11-24T10:43:04.120Z",
            "until": "2026-11-24T10:53:10.520Z",
            "probe": True,
            "times": 2,
            "reason": "auth-refused: 535 Error: authentication failed",
        }
    ],
    "proven_at": None,
    "prober": None,
    "quotas": [
        {
            "quota": "30/15m",
            "per": "relay",
            "unit": "messages",
            "limit": 30,
            "used": 27,
            "in_flight": 1,
            "left": 0,
            "left_for_high": 3,
            "next_free_at": "2026-11-24T10:52:31.408Z",
            "next_free_at_for_high": None,
        }
    ],
}
RELAY_WITH_EVENTS = {
    **RELAY,
    "events": [
        {
            "at": "2026-11-24T10:43:04.120Z",
            "kind": "probe_failed",
            "relay": "default",
            "detail": "auth-refused: 535 Error: authentication failed",
        }
    ],
}
CHECK = {
    "ok": False,
    "steps": [
        {"name": "dns", "ok": True, "state": "ok", "milliseconds": 3.1, "detail": "203.0.113.9", "hint": None},
        {
            "name": "auth",
            "ok": False,
            "state": "failed",
            "milliseconds": 120.4,
            "detail": "535 Login Fail",
            "hint": "The login was refused: most providers want an authorization code (授权码) instead of the password.",
        },
        {"name": "sender", "ok": False, "state": "not_run", "milliseconds": None, "detail": "", "hint": None},
    ],
}
KEY = {
    "id": "key_01M86KP85SV3J083Y0N1904CWS",
    "account": "default",
    "name": "shop",
    "prefix": "pr_Ab3dEf6hIj9l",
    "scopes": ["send", "read"],
    "from_allowed": ["example.com"],
    "rate": "100/s",
    "created_at": AT,
    "expires_at": None,
    "revoked_at": None,
}
READY = {
    "status": "ready",
    "role": "all",
    "checks": {"storage": "ok", "draining": "no"},
    "sending": "on",
    "guard": None,
    "waiting_recipients": 0,
}


def listed(entry: Any) -> dict[str, Any]:
    """A page with one entry."""
    return {"data": [entry], "next": None}
