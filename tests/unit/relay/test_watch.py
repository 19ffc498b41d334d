"""Changes of the files that relays are made of are seen, and nothing else is."""

import os
from pathlib import Path

import pytest

from service.clock import SYSTEM
from service.relay.watch import Watch, named_in
from service.settings import Settings, load
from tests.support.clock import SteppedClock

RELAYS = """
[relays.a]
url = "smtps://h.example?ca_file={folder}/ca.pem"
secret_file = "{folder}/secret"
[relays.a.oauth2]
client_secret_file = "{folder}/client"
"""


class Later(SteppedClock):
    """A clock by which everything was written long ago."""

    def now(self) -> int:
        return SYSTEM.now() + 3600_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A relays file, and the files that it names."""
    (tmp_path / "relays.toml").write_text(RELAYS.format(folder=tmp_path))
    for name in ("ca.pem", "secret", "client"):
        (tmp_path / name).write_text("first")
    return load(relays_file=tmp_path / "relays.toml")


def looked_at(settings: Settings) -> Watch:
    """A watch that has seen it all."""
    watch = Watch(settings, Later())
    assert watch.look(), "what stood there before the first look is not known"
    assert not watch.look()
    return watch


@pytest.mark.parametrize("name", ["relays.toml", "secret", "ca.pem", "client"])
def test_another_content_of_any_file_is_seen_once(settings: Settings, tmp_path: Path, name: str) -> None:
    watch = looked_at(settings)
    with (tmp_path / name).open("a") as file:
        file.write("# more\n")
    assert watch.look()
    assert not watch.look()


def test_a_file_that_was_touched_holds_what_it_held(settings: Settings, tmp_path: Path) -> None:
    watch = looked_at(settings)
    os.utime(tmp_path / "secret", (1, 1))
    (tmp_path / "secret").replace(tmp_path / "elsewhere")
    (tmp_path / "secret").write_text("first")
    assert not watch.look()


def test_what_does_not_change_is_not_read_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = looked_at(settings)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    assert not watch.look()


def test_a_file_that_was_written_just_now_is_read_again_whatever_its_times(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes within one tick of the file system's clock leave the same size and times."""
    look_at, written = Path.stat, (tmp_path / "secret").stat()
    monkeypatch.setattr(Path, "stat", lambda self: written if self.name == "secret" else look_at(self))
    watch = Watch(settings, SYSTEM)
    assert watch.look()
    (tmp_path / "secret").write_text("other")
    assert watch.look()


def test_a_swap_of_symbolic_links_is_seen(tmp_path: Path) -> None:
    """As Kubernetes does it: the file is a link into `..data`, itself a link to a folder, which alone is replaced."""
    for version, content in (("1", "first"), ("2", "other")):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "secret").write_text(content)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "secret").symlink_to("..data/secret")
    (tmp_path / "relays.toml").write_text(f'[relays.a]\nurl = "smtps://h.example"\nsecret_file = "{tmp_path}/secret"\n')
    watch = looked_at(load(relays_file=tmp_path / "relays.toml"))
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert watch.look()
    assert not watch.look()


def test_a_file_that_is_gone_and_comes_back_is_two_changes(settings: Settings, tmp_path: Path) -> None:
    watch = looked_at(settings)
    (tmp_path / "secret").rename(tmp_path / "away")
    assert watch.look()
    (tmp_path / "away").rename(tmp_path / "secret")
    assert watch.look()


def test_files_that_a_new_relays_file_names_are_looked_at_even_if_they_come_later(
    settings: Settings, tmp_path: Path
) -> None:
    watch = looked_at(settings)
    (tmp_path / "relays.toml").write_text(f"[relays.a]\nsecret_file = '{tmp_path}/later'\n")
    assert watch.look()
    assert not watch.look()
    (tmp_path / "later").write_text("here")
    assert watch.look()


def test_a_relay_by_url_has_files_too(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("first")
    (tmp_path / "url").write_text(f"smtps://u:SECRET@h.example?ca_file={tmp_path}/ca.pem\n")
    for settings in (load(relay_url_file=tmp_path / "url"), load(relay_url=(tmp_path / "url").read_text())):
        (tmp_path / "ca.pem").write_text("first")
        watch = looked_at(settings)
        (tmp_path / "ca.pem").write_text("other one")
        assert watch.look()
    assert "SECRET" not in repr(vars(watch))


@pytest.mark.parametrize("text", ["", "[relays", "\x00", "smtps://[", "[relays.a]\nurl = 5\nsecret_file = 6\n"])
def test_what_is_no_relays_file_names_nothing(text: str) -> None:
    assert list(named_in(text)) == []


def test_a_path_that_no_file_can_have_ends_nothing(settings: Settings, tmp_path: Path) -> None:
    watch = looked_at(settings)
    (tmp_path / "relays.toml").write_text('[relays.a]\nurl = "smtps://h.example"\nca_file = "a\\u0000b"\n')
    assert watch.look()
    assert not watch.look()


def test_a_file_that_waits_for_a_writer_is_no_file_and_holds_up_no_look(settings: Settings, tmp_path: Path) -> None:
    watch = looked_at(settings)
    (tmp_path / "secret").unlink()
    os.mkfifo(tmp_path / "secret")
    assert watch.look(), "what was there is gone"
    assert not watch.look()
