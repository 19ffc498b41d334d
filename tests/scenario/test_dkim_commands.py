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
    file = tmp_path / "dkim.toml"
    file.write_text(f'[domains."xn--fsqu00a.example"]\nkeys = [\n{line_of(made.stdout)}\n]\n')
    (key,) = load_ring(file).keys
    assert key.domain == "xn--fsqu00a.example"
    assert '`keys = [ ]` in the table [domains."xn--fsqu00a.example"]' in made.stdout
    shown = postroom(tmp_path, "records", POSTROOM_DKIM_FILE="dkim.toml")
    assert f'pr2026._domainkey.xn--fsqu00a.example. IN TXT ( "{key.record}" )' in shown.stdout
    assert f'"{key.record}"' in made.stdout


def line_of(said: str) -> str:
    """The line to paste: the last that `generate` prints."""
    return said.rstrip().splitlines()[-1]


def test_the_lines_of_two_keys_go_into_one_table_wherever_it_stands(tmp_path: Path) -> None:
    made = [postroom(tmp_path, "generate", "a.example", name, f"secrets/{name}.pem") for name in ("one", "two")]
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "dkim.toml"
    file.write_text('[domains."a.example"]\nkeys = [\n' + "\n".join(line_of(each.stdout) for each in made) + "\n]\n")
    assert [key.selector for key in load_ring(file).keys] == ["one", "two"]
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_a_mistake_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "there.pem").write_text("precious")
    for arguments, sentence in (
        (("generate", "a.example", "s", "there.pem"), "postroom: there.pem: File exists"),
        (("generate", "a b", "s", "x.pem"), "postroom: a b: the domain must be"),
        (("generate", "a.example", "a_b", "x.pem"), "postroom: a_b: a selector is a name"),
        (("generate", "a.example", "s", "there.pem/x.pem"), "postroom: there.pem/x.pem: "),
        (("records",), "postroom: POSTROOM_DKIM_FILE is not set"),
    ):
        ran = postroom(tmp_path, *arguments)
        assert ran.returncode == 1
        assert ran.stderr.startswith(sentence), ran.stderr
        assert ran.stdout == ""
    assert (tmp_path / "there.pem").read_text() == "precious"
    assert not (tmp_path / "x.pem").exists()
