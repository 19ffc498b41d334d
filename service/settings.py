"""Every setting, read from the environment (prefix POSTROOM_) once, here. docs/settings.md is made from this file.

A wrong value stops the start with a sentence naming the setting; every limit of the service is one of these.
"""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.durations import parse_duration
from service.errors import ConfigurationError

PREFIX = "POSTROOM_"


def _seconds(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _split(value: Any) -> Any:
    return [part for part in re.split(r"[,\s]+", value.strip()) if part] if isinstance(value, str) else value


def _durations(value: Any) -> Any:
    return [parse_duration(part) for part in _split(value)] if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Schedule = Annotated[tuple[float, ...], NoDecode, BeforeValidator(_durations)]
MEBIBYTE = 1024 * 1024
_HOST_NAME = re.compile(r"\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]", re.ASCII)
_IN_FILES = (
    "database_url",
    "database_listen_url",
)  # read from their `..._FILE` here; those of relays are read by the relays


class Settings(BaseSettings):
    """The settings and their defaults. Durations are seconds or text such as `10m`; sizes are octets."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    host: str = Field("127.0.0.1", description="Address the HTTP server listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the HTTP server; 0 picks a free one.")
    database_url: str = Field(
        "sqlite:///var/postroom.db",
        repr=False,  # it may hold a password
        description="Where messages are stored: `sqlite:///path`, or `postgresql://user@host/database`.",
    )
    database_url_file: Path | None = Field(None, description="A file that holds POSTROOM_DATABASE_URL.")
    database_connections: int = Field(
        4,
        ge=1,
        description="PostgreSQL: connections for reads and rare writes, beside five for groups, hints and watch.",
    )
    database_timeout: Seconds = Field(10, gt=0, description="PostgreSQL: one statement; the client waits 2 s longer.")
    database_lock_timeout: Seconds = Field(
        5,
        gt=0,
        description="PostgreSQL: waiting for rows that others hold; never longer than 0.3 of POSTROOM_LEASE. A transaction"
        " that stands still for 0.6 of it is ended.",
    )
    database_connect_timeout: Seconds = Field(5, gt=0, description="PostgreSQL: a new connection.")
    database_wait: Seconds = Field(
        120,
        le=3600,
        description="PostgreSQL: a start tries for so long to reach a database that is not there yet, or whose schema"
        " another process keeps; 0: once. A refused password and a schema that does not fit end it at once.",
    )
    database_listen_url: SecretStr | None = Field(
        None, description="PostgreSQL: for LISTEN, past a pooler in transaction mode; default: POSTROOM_DATABASE_URL."
    )
    database_listen_url_file: Path | None = Field(None, description="A file that holds POSTROOM_DATABASE_LISTEN_URL.")
    role: Literal["all", "api", "sender", "apart"] = Field(
        "all", description="What this process does; `apart` starts an `api` and a `sender`, which use two cores."
    )
    sender_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="With role `apart`, the sender's port for probes and metrics. Default: PORT + 1.",
    )
    hold: bool = Field(False, description="Start with sending held (after restoring an old copy).")

    relay_url: SecretStr | None = Field(
        None, description="One relay: `smtps://user%40163.com:CODE@smtp.163.com`, or `smtp+starttls://...:587`."
    )
    relay_url_file: Path | None = Field(None, description="A file that holds POSTROOM_RELAY_URL.")
    relays_file: Path | None = Field(None, description="A TOML file with several relays.")
    relays_refresh: Seconds = Field(
        5, description="How often the files of the relays are looked at for changes; 0: only on SIGHUP."
    )
    ehlo_name: str = Field(
        "localhost", pattern=r"^[A-Za-z0-9.\[\]:-]{1,255}$", description="The name this host gives itself in EHLO."
    )
    connect_timeout: Seconds = Field(15, description="The relay's DNS answer, and the TCP connection, each.")
    greeting_timeout: Seconds = Field(30, description="TLS handshake, the relay's 220, EHLO and AUTH replies, each.")
    command_timeout: Seconds = Field(60, description="MAIL and RCPT replies (RFC 5321 4.5.3.2 allows 5 min).")
    data_timeout: Seconds = Field(120, description="The 354 after DATA.")
    block_timeout: Seconds = Field(180, description="Progress of each block of content.")
    dot_timeout: Seconds = Field(300, description="The reply after the final dot.")
    transaction_timeout: Seconds = Field(900, description="One mail transaction in all.")
    idle_timeout: Seconds = Field(60, description="An idle session is closed with QUIT after this.")
    session_lifetime: Seconds = Field(600, description="No session is used longer.")
    start_wait: Seconds = Field(
        5,
        gt=0,
        le=60,
        description="A delivery that was claimed and can't start (no connection is free, another one logs in) is given back"
        " after this; so long a check waits for its turn to log in.",
    )
    logins_at_once: int = Field(
        2,
        ge=1,
        le=100,
        description="Logins that one process tries at once with a secret that was just proven; another secret is tried alone.",
    )
    widen_after: Seconds = Field(
        600,
        gt=0,
        description="After a relay complained of too many connections, one more is tried each time it was content for this.",
    )
    chunk_within: Seconds = Field(
        5,
        le=60,
        description="A small message goes in one piece (BDAT) only over a session on which the relay answered within this;"
        " 0: never. Over one that it has closed meanwhile such a message would be in doubt.",
    )
    avoided_for: Seconds = Field(
        30,
        le=3600,
        description="A relay that ended a fresh session before a message was taken is asked after the others for this.",
    )
    doubts_in_a_row: int = Field(
        3,
        ge=0,
        le=1000,
        description="A relay that left so many contents in a row without an answer rests. Each process counts its own."
        " 0: never.",
    )
    fruitless_in_a_row: int = Field(
        3,
        ge=0,
        le=1000,
        description="A relay that ended so many fresh sessions in a row, each with another message, before one was taken"
        " rests. Each process counts its own. 0: never.",
    )
    refusals_in_a_row: int = Field(
        10,
        ge=0,
        le=1000,
        description="When a relay refused so many messages in a row with the same words that do not tell what is"
        " wrong with a message, or put them off at MAIL with any words, and accepted none between, it rests. Each process"
        " counts its own. 0: never.",
    )
    learnt_for: Seconds = Field(
        3600,
        gt=0,
        description="What a relay was found to take less of (recipients, messages on a connection, pipelining, chunks) is"
        " tried again after this; while that fails, after twice as long each time, at most 24 times this.",
    )
    check_timeout: Seconds = Field(60, gt=0, description="One check of a relay, all its steps together.")
    certificate_warning: Seconds = Field(
        14 * 86400, description="A check warns when the relay's certificate expires within this."
    )
    check_force_interval: Seconds = Field(
        60, description="A forced check of an account that rests logs in no more often than this."
    )
    token_timeout: Seconds = Field(30, gt=0, description="One access token from a command or an OAuth2 server.")
    token_margin: Seconds = Field(60, description="An access token is fetched anew so long before it expires.")
    token_lifetime: Seconds = Field(300, description="An access token that does not tell its expiry is kept so long.")

    dkim_file: Path | None = Field(None, description="A TOML file with the DKIM keys of sender domains.")
    templates_dir: Path | None = Field(
        None, description="Templates; default: `templates/` where it is started, else the starter set."
    )
    templates_watch: bool = Field(False, description="Look for changed template files before each use (`dev` does).")
    templates_refresh: Seconds = Field(2, description="How long a published template is used without asking the store.")
    templates_kept: int = Field(
        1000,
        ge=1,
        description="Published templates kept compiled, 40 to 200 KiB each; one counts again for each 16 KiB of its files.",
    )
    render_timeout: Seconds = Field(0.5, description="Rendering of one message; it holds up other requests.")
    max_rendered_bytes: int = Field(2 * MEBIBYTE, gt=0, description="Rendered html or text of one message.")

    auth: Literal["keys", "none"] = Field("keys", description="`none`: anybody who reaches the port may send.")
    allowed_hosts: Words = Field(
        (),
        description="Names under which the service answers, without port; `*.example.com` takes all below it, `*` any."
        " Default: any; where no key is asked for and the service listens on loopback, `localhost`, `*.localhost`,"
        " `127.0.0.1`, `[::1]` and the address it listens on. /healthz, /readyz and /metrics answer to any.",
    )
    bootstrap_key_file: Path | None = Field(None, description="File with the first admin key of an empty store.")
    redirect_all_to: str | None = Field(None, description="Staging guard: every recipient becomes this address.")
    recipients_allowed: Words = Field((), description="Staging guard: only these addresses or domains get mail.")
    recipient_limit: str = Field(
        "30/h",
        description="Accepted messages per recipient and account; `off` for none."
        " Addresses count as they are given: `a+1@` and `a+2@` are two.",
    )

    timezone: str = Field("UTC", description="Zone of times that templates and quotas show.")
    default_ttl: Seconds = Field(4 * 86400, gt=0, description="How long a message is tried.")
    max_ttl: Seconds = Field(30 * 86400, gt=0, description="The longest ttl a request may ask for.")
    max_schedule: Seconds = Field(90 * 86400, gt=0, description="How far ahead a message may be scheduled.")
    retry_schedule: Schedule = Field(
        (5, 30, 120, 300, 900, 1800, 3600), min_length=1, description="Waits between attempts; the last repeats."
    )
    reconnect_free_after: Seconds = Field(
        3600,
        ge=60,
        description="A message whose connection broke off is tried over a new one uncharged, once within this; then it pays.",
    )
    max_in_doubt: int = Field(2, ge=0, description="Attempts in doubt before a recipient is parked as unknown.")
    in_doubt_delay: Seconds = Field(900, description="Wait before an attempt in doubt is repeated.")
    max_kills: int = Field(3, ge=1, description="A message that kills its sender this often is failed as poison.")
    lease: Seconds = Field(30, ge=2, description="A sender's claim; its heartbeat renews it at a third of this.")
    clock_jump: Seconds = Field(
        60, gt=0, description="A wall clock that goes ahead by more than this at once is doubted."
    )
    clock_patience: Seconds = Field(
        900,
        description="For so long it is doubted; mail that is late or due by it alone waits meanwhile. 0: not at all.",
    )
    poll_interval: Seconds = Field(1, gt=0, description="How often the queue is looked at without a hint.")
    quota_headroom: float = Field(
        0.1, ge=0, lt=1, description="Share of each relay's quota that only priority high may use; a relay's own wins."
    )
    quota_guard: Seconds = Field(
        1, description="A quota's window is taken longer by this, or by a fiftieth of it where that is less."
    )

    max_recipients: int = Field(50, ge=1, le=1000, description="Recipients of one message; 1000 at most.")
    max_attachments: int = Field(50, ge=0, description="Attachments of one message.")
    max_headers: int = Field(50, ge=0, description="Further header fields of one message.")
    max_tags: int = Field(20, ge=0, description="Tags of one message.")
    max_metadata: int = Field(50, ge=0, description="Metadata entries of one message.")
    max_message_bytes: int = Field(25 * MEBIBYTE, gt=0, description="Decoded content of one message, in all.")
    max_batch_messages: int = Field(500, ge=1, description="Messages of one batch.")
    max_batch_bytes: int = Field(256 * MEBIBYTE, gt=0, description="Composed messages of one batch, in all.")
    batches_at_once: int | None = Field(
        None,
        ge=1,
        description="Batches that a process works on at once; the others wait their turn. Default: one in a process of role"
        " `api` (or of `apart`) on SQLite, whose file its sender writes to as well, there 1000 is as good as all; elsewhere all.",
    )
    batch_wait: Seconds = Field(30, gt=0, description="A batch waits so long for its turn; then 503 queue_full.")
    max_json_depth: int = Field(32, ge=4, le=500, description="Nesting of a request's JSON, at most 500.")
    max_inflight_bytes: int = Field(256 * MEBIBYTE, gt=0, description="Bodies being read or composed; beyond it 503.")
    max_queued: int = Field(5_000_000, ge=1, description="Recipients that wait; beyond it 503 queue_full.")
    max_head_bytes: int = Field(
        65536, ge=8192, description="A request's head: its line and header fields. What one read brings is taken whole."
    )
    head_timeout: Seconds = Field(
        30, gt=0, description="A request's whole head, and the wait for the first one of a connection."
    )
    body_timeout: Seconds = Field(30, gt=0, description="A request's whole body.")
    max_wait: Seconds = Field(30, description="Longest `Prefer: wait`.")
    idempotency_wait: Seconds = Field(
        2,
        le=30,
        description="A repeat waits so long for the request in flight with the same Idempotency-Key; then 409.",
    )

    drain_delay: Seconds = Field(5, description="After SIGTERM: not ready, but still accepting, for this long.")
    drain_grace: Seconds = Field(25, description="Then transactions in flight may finish within this.")
    content_retention: Seconds = Field(7 * 86400, description="Bytes of a closed message are kept this long.")
    log_retention: Seconds = Field(90 * 86400, description="The delivery log of a closed message is kept this long.")
    idempotency_retention: Seconds = Field(86400, description="Idempotency keys, counted again from the close.")

    log_format: Literal["json", "console"] = Field("json", description="Log lines for machines or for people.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    failpoints: str = Field("", description="For tests: places in the code that kill or stop this process on purpose.")
    failpoints_allowed: bool = Field(False, description="This is a test: POSTROOM_FAILPOINTS is not refused.")
    log_addresses: bool = Field(False, description="Log whole addresses; otherwise only their domains.")
    otel_endpoint: str | None = Field(
        None,
        repr=False,  # it may hold a password
        description="Traces go to this OTLP endpoint over HTTP; needs `postroom[otel]`."
        " Default: OTEL_EXPORTER_OTLP_ENDPOINT.",
    )

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        if not url.startswith(("sqlite:///", "postgresql://", "postgres://")):
            raise ValueError("must be `sqlite:///path/to/file.db` or `postgresql://user@host/database`")
        return url

    @field_validator("allowed_hosts")
    @classmethod
    def _names_of_hosts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if _HOST_NAME.fullmatch(name) is None:
                raise ValueError(
                    f"{name!r} is no host: give names such as mail.example.com, *.example.com or [::1], no port"
                )
        return names

    @model_validator(mode="after")
    def _one_relay_source(self) -> Self:
        if self.relay_url and self.relay_url_file:
            raise ValueError("POSTROOM_RELAY_URL and POSTROOM_RELAY_URL_FILE exclude each other")
        return self

    @model_validator(mode="after")
    def _one_database_source(self) -> Self:
        if self.database_url_file and "database_url" in self.model_fields_set:
            raise ValueError("POSTROOM_DATABASE_URL and POSTROOM_DATABASE_URL_FILE exclude each other")
        if self.database_listen_url_file and self.database_listen_url:
            raise ValueError("POSTROOM_DATABASE_LISTEN_URL and POSTROOM_DATABASE_LISTEN_URL_FILE exclude each other")
        return self

    @property
    def raw_body_limit(self) -> int:
        """Octets of a request's body: base64 is 4/3 of what it holds, and 1 MiB for the rest."""
        return self.max_message_bytes * 4 // 3 + MEBIBYTE


def standard_otel_endpoint() -> str | None:
    """The endpoint that OpenTelemetry's own variables name for all programs of a host; None where they turn it off."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    return os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or None


def unknown() -> dict[str, str | None]:
    """Variables that look like settings and are none, each with the name that was perhaps meant."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {f"{PREFIX}API_KEY", f"{PREFIX}CI"}
    found = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    return {name: next(iter(get_close_matches(name, known, 1, 0.8)), None) for name in found}


def load(**overrides: Any) -> Settings:
    """The settings from the environment. Raises ConfigurationError naming each wrong setting, never its value."""
    try:
        settings = Settings(**overrides)
        read: dict[str, Any] = {}
        for name in _IN_FILES:
            if (file := getattr(settings, f"{name}_file")) is not None:
                read |= {name: _read_url(name, file), f"{name}_file": None}
        return Settings(**{**overrides, **read}) if read else settings
    except ValidationError as error:
        faults = "; ".join(
            f"{PREFIX}{'_'.join(str(part) for part in fault['loc'][:1]).upper()}: {_words(fault)}"
            if fault["loc"]
            else _words(fault)
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(faults) from None


_WORDS = {  # by the type of pydantic's error; the context fills the braces
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must fit {pattern}",
    "too_short": "must have at least {min_length}",
    "value_error": "{error}",
}


def _words(fault: Mapping[str, Any]) -> str:
    """What is wrong, in a sentence of ours."""
    sentence = _WORDS.get(fault["type"])
    return sentence.format(**fault.get("ctx", {})) if sentence else str(fault["msg"])


def _read_url(name: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigurationError(f"{PREFIX}{name.upper()}_FILE: {file}: {reason}") from None
