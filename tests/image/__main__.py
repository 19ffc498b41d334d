"""`make image-test`: build the image, start the service in it, send one message to its capture relay and read it back.

Needs root, buildah and, unless IMAGE_TEST_BASE names a base image, debootstrap, which makes it of the Debian that
IMAGE_TEST_SUITE names (trixie, whose Python is 3.13 as that of the Dockerfile). IMAGE_TEST_FOLDER keeps what was built
(~/.cache/postroom-image), IMAGE_TEST_ARGS are further arguments of `buildah bud`. The exit status is 1 when
something is not as docs/container.md says.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from tests.image.builder import Builder
from tests.support.process import ROOT
from tests.support.running import ARTICLE
from tests.support.waiting import wait_for

IMAGE = "localhost/postroom:image-test"
USER = 10001
_UP, _DOWN = 60.0, 60.0  # seconds


def main() -> int:
    """The exit status."""
    if missing := _missing():
        print(f"image-test: not run: {missing}", file=sys.stderr)
        return 1
    folder = Path(os.environ.get("IMAGE_TEST_FOLDER") or Path.home() / ".cache" / "postroom-image").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    builder = Builder(folder)
    base = os.environ.get("IMAGE_TEST_BASE") or builder.base(os.environ.get("IMAGE_TEST_SUITE") or "trixie")
    began = time.monotonic()
    flags = shlex.split(os.environ.get("IMAGE_TEST_ARGS", ""))
    builder.build(ROOT, IMAGE, {"PYTHON_IMAGE": base, "EXTRAS": "otel"}, flags)
    print(
        f"built in {time.monotonic() - began:.0f} s: {builder.size(IMAGE)}, of which the base is {builder.size(base)}"
    )
    _try(builder)
    print("a message was sent from the image and read back; the service ended with 0 on SIGTERM")
    return 0


def _missing() -> str:
    """What this machine lacks, in words."""
    if os.geteuid() != 0:
        return "it needs root, to make a root file system"
    wanted = ["buildah", *([] if os.environ.get("IMAGE_TEST_BASE") else ["debootstrap"])]
    return ", ".join(f"there is no {name}" for name in wanted if shutil.which(name) is None)


def _try(builder: Builder) -> None:
    config = builder.config(IMAGE)
    assert config["User"] == f"{USER}:{USER}", config["User"]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        "POSTROOM_HOST": "127.0.0.1",
        "POSTROOM_PORT": str(port),
        "POSTROOM_OTEL_ENDPOINT": "http://127.0.0.1:9",
    }
    with builder.container(IMAGE) as container:
        command = builder.run(container, [*config["Entrypoint"], "dev"], environment)
        with _running(command) as service:
            _send_and_read(f"http://127.0.0.1:{port}")
            check = builder.run(container, config["Healthcheck"]["Test"][1:], environment)
            assert subprocess.run(check, check=False, timeout=_UP).returncode == 0, "the health check of the image"
            _stop(service)
        assert subprocess.run(check, check=False, timeout=_UP, stderr=subprocess.DEVNULL).returncode == 1


@contextmanager
def _running(command: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            for each in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
                each.kill()
            process.kill()


def _send_and_read(url: str) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        assert wait_for(lambda: _answers(client), _UP), "the service does not answer"
        sent = client.post("/send", json=ARTICLE, headers={"Prefer": "wait=20"})
        assert (sent.status_code, sent.json()["status"]) == (200, "sent"), sent.text
        (mail,) = client.get("/inbox/api/messages").json()["messages"]
        assert mail["subject"] == ARTICLE["subject"], mail


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _stop(service: "subprocess.Popen[bytes]") -> None:
    """SIGTERM to the service itself, below all that buildah puts around it; buildah hands its status on."""
    own = psutil.Process(service.pid).children(recursive=True)[-1]
    assert set(own.uids()) == {USER}, own
    own.send_signal(signal.SIGTERM)
    assert service.wait(_DOWN) == 0, "the status of the service"


if __name__ == "__main__":
    sys.exit(main())
