"""buildah, on a store of images of its own, so that those of this machine are left alone. No daemon, no overlay, no namespaces.

It decides how an image is built and run here, and refuses to know what is in it.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
DEBIAN = "http://deb.debian.org/debian"
PACKAGES = "python3,python3-venv,ca-certificates"
_BUILD_DEADLINE, _DEADLINE = 1800, 300  # seconds


class Builder:
    """Images below `folder`, which may be kept: what was built is not built again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._command = ["buildah", "--root", str(folder / "images"), "--runroot", str(folder / "run")]
        self._command += ["--storage-driver", "vfs"]

    def ask(self, *words: str, deadline: float = _DEADLINE) -> str:
        """What buildah prints. Raises CalledProcessError; its words are on our stderr."""
        ran = subprocess.run([*self._command, *words], check=True, stdout=subprocess.PIPE, text=True, timeout=deadline)
        return ran.stdout.strip()

    def base(self, suite: str) -> str:
        """The name of an image of Debian with its Python, made by debootstrap where there is none yet. `suite`: `trixie`."""
        name = f"localhost/postroom-base:{suite}"
        if not self.ask("images", "--quiet", "--filter", f"reference={name}"):
            root = self._folder / f"base-{suite}"
            if not root.exists():
                self._bootstrap(suite, root)
            with self.container("scratch") as container:
                self.ask("add", container, str(root), "/")
                self.ask("commit", container, name)
        return name

    def _bootstrap(self, suite: str, root: Path) -> None:
        """A folder that is there is whole."""
        part = root.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(part), DEBIAN]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=_BUILD_DEADLINE)
        part.rename(root)

    def build(self, context: Path, tag: str, arguments: dict[str, str], flags: Sequence[str] = ()) -> None:
        """The Dockerfile of a folder. pip trusts whom this machine trusts: a proxy of its own may stand before PyPI."""
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        trusted = [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"] if CERTIFICATES.is_file() else []
        how = ["--isolation", "chroot", "--format", "docker", "--tag", tag]  # OCI's format has no health check
        self.ask("bud", *how, *given, *trusted, *flags, str(context), deadline=_BUILD_DEADLINE)
        self.ask("rmi", "--prune")  # what the tag stood for before

    def config(self, image: str) -> dict[str, Any]:
        """What the image says of how it is run."""
        found: dict[str, Any] = json.loads(self.ask("inspect", "--type", "image", image))["Docker"]["config"]
        return found

    def size(self, image: str) -> str:
        """As a person reads it."""
        return self.ask("images", "--noheading", "--format", "{{.Size}}", image)

    @contextmanager
    def container(self, image: str) -> Iterator[str]:
        """A container's name; it is gone afterwards."""
        name = self.ask("from", image)
        try:
            yield name
        finally:
            self.ask("rm", name)

    def run(self, container: str, command: Sequence[str], environment: dict[str, str]) -> list[str]:
        """The command line that runs a command in it as the user of the image; the network is this machine's."""
        given = [f"--env={name}={value}" for name, value in environment.items()]
        return [*self._command, "run", "--isolation", "chroot", *given, container, "--", *command]
