"""Headless Chromium from the system: what a page's DOM is after its scripts ran, and a picture of it."""

import shutil
import subprocess
import tempfile

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--virtual-time-budget=8000",
)  # fmt: skip


def require_chromium() -> str:
    """Its path; skips loudly without one."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: pages were NOT looked at in a browser (apt-get install chromium)")
    return CHROMIUM


def dom(url: str, *flags: str) -> str:
    """The DOM after loading. No host but loopback can be reached."""
    with tempfile.TemporaryDirectory() as profile:
        ran = subprocess.run(
            [require_chromium(), *FLAGS, *flags, f"--user-data-dir={profile}",
             "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--dump-dom", url],
            capture_output=True,
            timeout=60,
        )  # fmt: skip
    return ran.stdout.decode("utf-8", "replace")


def screenshot(url: str, path: str, width: int, height: int, *flags: str) -> None:
    """A picture of the page."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                require_chromium(),
                *FLAGS,
                *flags,
                f"--user-data-dir={profile}",
                f"--window-size={width},{height}",
                f"--screenshot={path}",
                url,
            ],
            capture_output=True,
            timeout=60,
            check=True,
        )
