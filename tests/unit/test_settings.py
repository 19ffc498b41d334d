"""Settings: a wrong value stops the start with a sentence naming it, and never shows it."""

import re
from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.settings import Settings, load
from service.store import bounds_of


def test_the_defaults_need_nothing() -> None:
    settings = load()
    assert settings.database_url == "sqlite:///var/postroom.db"
    assert settings.raw_body_limit == 25 * 1024 * 1024 * 4 // 3 + 1024 * 1024


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POSTROOM_PORT", "eighty"),
        ("POSTROOM_LEASE", "soon"),
        ("POSTROOM_AUTH", "perhaps"),
        ("POSTROOM_RETRY_SCHEDULE", "5s,never"),
        ("POSTROOM_DATABASE_URL", "mysql://secret-word@db"),
        ("POSTROOM_MAX_RECIPIENTS", "0"),
        ("POSTROOM_MAX_RECIPIENTS", "1001"),  # a recipient's row is numbered within a thousand for its message
        ("POSTROOM_MAX_JSON_DEPTH", "501"),  # what is read beyond that depends on Python's version
        ("POSTROOM_EHLO_NAME", "me\r\nMAIL FROM:<x>"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert name in caught.value.detail
    assert "secret-word" not in caught.value.detail


@pytest.mark.parametrize("value", ["?nonsense", "-1", "1e999", "", " 1.5 "])
def test_no_setting_is_refused_in_words_of_a_library(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    for name in Settings.model_fields:
        with monkeypatch.context() as each:
            each.setenv(f"POSTROOM_{name.upper()}", value)
            try:
                load()
            except ConfigurationError as error:
                told.append(error.detail)
    assert len(told) > 5
    assert [each for each in told if re.search(r"Input|should|Value error|valid |Tuple|String", each)] == []


def test_all_wrong_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_PORT", "x")
    monkeypatch.setenv("POSTROOM_LEASE", "x")
    with pytest.raises(ConfigurationError, match=r"(?s)POSTROOM_PORT.*POSTROOM_LEASE"):
        load()


def test_durations_and_lists_are_written_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_DEFAULT_TTL", "2h")
    monkeypatch.setenv("POSTROOM_RETRY_SCHEDULE", "1s, 2m")
    monkeypatch.setenv("POSTROOM_RECIPIENTS_ALLOWED", "a@b.example, c.example")
    settings = load()
    assert settings.default_ttl == 7200
    assert settings.retry_schedule == (1, 120)
    assert settings.recipients_allowed == ("a@b.example", "c.example")


def test_a_relay_secret_is_not_shown_by_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_RELAY_URL", "smtps://me:canary-code@smtp.163.com")
    assert "canary-code" not in repr(load())


def test_two_sources_of_one_secret_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_RELAY_URL", "smtps://me:code@smtp.163.com")
    monkeypatch.setenv("POSTROOM_RELAY_URL_FILE", "/run/secrets/relay")
    with pytest.raises(ConfigurationError, match="exclude each other"):
        load()


def test_the_url_of_the_database_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("sqlite:///from-a-file.db\n")
    monkeypatch.setenv("POSTROOM_DATABASE_URL_FILE", str(tmp_path / "url"))
    settings = load(role="api")
    assert (settings.database_url, settings.role) == ("sqlite:///from-a-file.db", "api")


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"mysql://canary-word@host/x"])
def test_a_file_that_holds_no_url_of_a_database_is_refused_by_name(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "url").write_bytes(content)
    monkeypatch.setenv("POSTROOM_DATABASE_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(ConfigurationError, match="POSTROOM_DATABASE_URL") as caught:
        load()
    assert "canary-word" not in caught.value.detail


def test_two_sources_of_the_database_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_DATABASE_URL", "sqlite:///a.db")
    monkeypatch.setenv("POSTROOM_DATABASE_URL_FILE", "/run/secrets/database-url")
    with pytest.raises(ConfigurationError, match="exclude each other"):
        load()


def test_the_url_for_listening_may_come_from_a_file_as_every_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, file = "postgresql://postroom:canary-word@direct/postroom", tmp_path / "listen-url"
    file.write_text(url + "\n")
    monkeypatch.setenv("POSTROOM_DATABASE_LISTEN_URL_FILE", str(file))
    settings = load()
    assert settings.database_listen_url is not None
    assert settings.database_listen_url.get_secret_value() == url
    assert bounds_of(settings).listen_url == url
    assert "canary-word" not in repr(settings)
    monkeypatch.setenv("POSTROOM_DATABASE_LISTEN_URL", url)
    with pytest.raises(ConfigurationError, match="POSTROOM_DATABASE_LISTEN_URL_FILE exclude each other"):
        load()
    monkeypatch.delenv("POSTROOM_DATABASE_LISTEN_URL")
    file.unlink()
    with pytest.raises(ConfigurationError, match=r"^POSTROOM_DATABASE_LISTEN_URL_FILE: .*No such file"):
        load()


def test_every_setting_that_holds_a_secret_has_one_that_names_its_file() -> None:
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secret == {"relay_url", "database_listen_url"}
    assert {f"{name}_file" for name in secret | {"database_url"}} <= set(Settings.model_fields)
