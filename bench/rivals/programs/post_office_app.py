"""django-post_office: a view that queues a message, and `prepare` and `work` on the command line. Runs in the rivals' environment."""

import json
import os
import sys
import time
from pathlib import Path

import django
from django.conf import settings

FOLDER, TEMPLATES = Path(os.environ["BENCH_FOLDER"]), Path(os.environ["BENCH_TEMPLATES"])
SECURE = "BENCH_CA_FILE" in os.environ
PAUSE = 0.02  # seconds, when nothing is queued

settings.configure(
    SECRET_KEY="bench",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.contenttypes", "post_office"],
    MIDDLEWARE=[],
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": FOLDER / "post.db",
            "CONN_MAX_AGE": None,
            "OPTIONS": {
                "timeout": 30,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            },
        }
    },
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    EMAIL_HOST="127.0.0.1",
    EMAIL_PORT=int(os.environ["BENCH_RELAY_PORT"]),
    EMAIL_USE_TLS=SECURE,
    EMAIL_HOST_USER=os.environ.get("BENCH_LOGIN", ""),
    EMAIL_HOST_PASSWORD=os.environ.get("BENCH_SECRET", ""),
    DEFAULT_FROM_EMAIL="Lantern <hello@lantern.example>",
    POST_OFFICE={"BATCH_SIZE": 1000, "MAX_RETRIES": 5, "THREADS_PER_PROCESS": int(os.environ["BENCH_CONNECTIONS"])},
    LOGGING={"version": 1, "disable_existing_loggers": True, "loggers": {"post_office": {"level": "ERROR"}}},
)
django.setup()

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402 - after setup
from django.core.management import call_command  # noqa: E402
from django.http import HttpRequest, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from post_office import mail, models  # noqa: E402


def send(request: HttpRequest) -> JsonResponse:
    """Queue one."""
    asked = json.loads(request.body)
    context = {name: asked[name] for name in ("name", "code", "lines")}
    mail.send(recipients=[asked["to"]], template="receipt", context=context, headers={"X-Bench-Id": asked["id"]})
    answer = JsonResponse({"status": "queued"}, status=202)
    answer["Content-Length"] = len(answer.content)
    return answer


urlpatterns = [path("send", send)]
application = WSGIHandler()


def prepare() -> None:
    """Tables, and the template."""
    call_command("migrate", verbosity=0)
    models.EmailTemplate.objects.create(
        name="receipt",
        subject="Your receipt {{ code }}",
        content=(TEMPLATES / "receipt.txt").read_text(),
        html_content=(TEMPLATES / "receipt.html").read_text(),
    )


def work() -> None:
    """Send what is queued, for ever."""
    while True:
        call_command("send_queued_mail", lockfile=str(FOLDER / "lock"))
        time.sleep(PAUSE)


if __name__ == "__main__":
    {"prepare": prepare, "work": work}[sys.argv[1]]()
