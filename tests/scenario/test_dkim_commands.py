"""`postroom dkim` as an operator uses it: make a key, publish its record, sign."""

import subprocess
import sys
from pathlib import Path

from service.spool.signing import load_ring
from tests.support.process import ROOT


def postroom(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", "dkim", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
    )


def test_a_key_is_made_shown_and_signs(tmp_path: Path) -> None:
    made = postroom(tmp_path, "generate", "例子.example", "pr2026", "pr2026.pem", "--kind", "ed25519")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "pr2026.pem").stat().st_mode & 0o777 == 0o600
    assert "BEGIN" not in made.stdout
    block = made.stdout.partition("POSTROOM_DKIM_FILE:\n\n")[2]
    file = tmp_path / "dkim.toml"
    file.write_text(block)
    (key,) = load_ring(file).keys
    assert key.domain == "xn--fsqu00a.example"
    shown = postroom(tmp_path, "records", POSTROOM_DKIM_FILE="dkim.toml")
    assert f'pr2026._domainkey.xn--fsqu00a.example. IN TXT ( "{key.record}" )' in shown.stdout
    assert f'"{key.record}"' in made.stdout


def test_a_mistake_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "there.pem").write_text("precious")
    for arguments, sentence in (
        (("generate", "a.example", "s", "there.pem"), "postroom: there.pem: File exists"),
        (("generate", "a b", "s", "x.pem"), "postroom: a b: the domain must be"),
        (("generate", "a.example", "a_b", "x.pem"), "postroom: a_b: a selector is a name"),
        (("generate", "a.example", "s", "no/x.pem"), "postroom: no/x.pem: No such file"),
        (("records",), "postroom: POSTROOM_DKIM_FILE is not set"),
    ):
        ran = postroom(tmp_path, *arguments)
        assert ran.returncode == 1
        assert ran.stderr.startswith(sentence), ran.stderr
        assert ran.stdout == ""
    assert (tmp_path / "there.pem").read_text() == "precious"
    assert not (tmp_path / "x.pem").exists()
