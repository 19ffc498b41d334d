"""The file of DKIM keys: what is read, and what is refused with a sentence that shows no key."""

from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.mail.dkim_keys import generate
from service.spool.signing import Signing, load_ring


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rsa.pem").write_bytes(generate("rsa"))
    (tmp_path / "ed.pem").write_bytes(generate("ed25519"))
    return tmp_path


def write(folder: Path, text: str) -> Path:
    file = folder / "dkim.toml"
    file.write_text(text)
    return file


GOOD = """
[domains."Bücher.example"]
subdomains = true
keys = [
  { selector = "r1", file = "rsa.pem", until = 2027-01-01T00:00:00Z },
  { selector = "e1", file = "ed.pem", since = 2026-01-01T08:00:00+08:00 },
]
"""


def test_keys_are_read_relative_to_the_file_and_bounded_in_time(folder: Path) -> None:
    ring = load_ring(write(folder, GOOD))
    assert [(key.domain, key.selector, key.algorithm) for key in ring.keys] == [
        ("xn--bcher-kva.example", "r1", "rsa-sha256"),
        ("xn--bcher-kva.example", "e1", "ed25519-sha256"),
    ]
    assert ring.keys[0].until == 1_798_761_600_000
    assert ring.keys[1].since == 1_767_225_600_000
    assert len(ring.for_sender("a@news.xn--bcher-kva.example", 1_780_000_000_000)) == 2


def test_a_byte_order_mark_is_no_fault(folder: Path) -> None:
    assert len(load_ring(write(folder, "\ufeff" + GOOD)).keys) == 2


def test_no_file_is_no_signature() -> None:
    assert load_ring(None).keys == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("domains = 5", "must hold tables"),
        ("", "must hold tables"),
        ('[domain."a.example"]\nkeys=[]', "must hold tables"),
        ("[domains", "dkim.toml: "),
        ('[domains."a_b"]\nkeys=[]', "domains.a_b: "),
        ('[domains."a.example"]\nkeys=[]', "keys: must be a list of at least one"),
        ('[domains."a.example"]\nkey=[]', "unknown key key; known are keys, subdomains"),
        ('[domains."a.example"]\nkeys=[{file="rsa.pem"}]', "keys[0]: selector: must be a name"),
        ('[domains."a.example"]\nkeys=[{selector="a b", file="rsa.pem"}]', "keys[0]: selector: must be a name"),
        ('[domains."a.example"]\nkeys=[{selector="a"}]', "keys[0]: file: must be the path"),
        ('[domains."a.example"]\nkeys=[{selector="a", file="no.pem"}]', "file: no.pem: No such file"),
        ('[domains."a.example"]\nkeys=[{selector="a", file="dkim.toml"}]', "file: dkim.toml: is no private key"),
        ('[domains."a.example"]\nkeys=[{selector="a", file="rsa.pem", until="2027"}]', "until: must be a time with an offset"),
        ('[domains."a.example"]\nkeys=[{selector="a", file="rsa.pem", until=2027-01-01T00:00:00}]', "until: must be a time with"),
        ('[domains."a.example"]\nkeys=[{selector="a", file="rsa.pem", since=2027-01-01T00:00:00Z, until=2026-01-01T00:00:00Z}]',
         "until: must be later"),
        ('[domains."a.example"]\nkeys=[{selector="a", file="rsa.pem"}, {selector="a", file="ed.pem"}]', "a._domainkey.a.example stands twice"),
        ('[domains."a.example"]\nkeys=[{selector="a", file="rsa.pem"}, {selector="A", file="ed.pem"}]', "stands twice"),
        ('[domains."a.example"]\nkeys=[{selector="a", file="rsa.pem"}]\n[domains."A.Example"]\nkeys=[{selector="a", file="ed.pem"}]',
         "stands twice"),
        ('[domains]', "must hold tables"),
        ('[domains.example.com]\nkeys=[{selector="a", file="rsa.pem"}]', 'a domain stands in quotes: [domains."example.com"]'),
        ("domains=" + "[" * 3000, "is nested too deeply"),
        (f'[domains."{"a." * 115}example"]\nkeys=[{{selector="{"b" * 40}", file="rsa.pem"}}]', "a DNS name has at most 253"),

        ('[domains."a.example"]\nsubdomains="yes"\nkeys=[{selector="a", file="rsa.pem"}]', "subdomains: must be true or false"),
        ('[domains]\n"a.example" = 5', "domains.a.example: must be a table"),
    ],
)  # fmt: skip
def test_a_fault_is_a_sentence_that_says_where(folder: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_ring(write(folder, text))
    assert why in caught.value.detail
    assert caught.value.detail.startswith("POSTROOM_DKIM_FILE: ")
    assert "PRIVATE" not in caught.value.detail


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_ring(tmp_path / "none.toml")


def test_a_reload_that_fails_leaves_the_keys_as_they_were(folder: Path) -> None:
    signing = Signing(write(folder, GOOD))
    write(folder, "broken =")
    with pytest.raises(ConfigurationError):
        signing.reload()
    assert len(signing.ring.keys) == 2
    write(folder, '[domains."a.example"]\nkeys=[{selector="a", file="ed.pem"}]')
    signing.reload()
    assert [key.selector for key in signing.ring.keys] == ["a"]
