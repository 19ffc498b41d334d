-- Small hot rows (messages, recipients, attempts), the log (events), and the bytes apart (contents, blobs).
-- Times are milliseconds since the epoch. rid = message * 1000 + n: a recipient's place within its message.

CREATE TABLE messages (
    seq               INTEGER PRIMARY KEY,
    id                TEXT NOT NULL UNIQUE,
    account           TEXT NOT NULL,
    message_id        TEXT NOT NULL,
    created_at        INTEGER NOT NULL,
    scheduled_at      INTEGER,
    expires_at        INTEGER NOT NULL,
    closed_at         INTEGER,
    priority          INTEGER NOT NULL,
    delivery          TEXT NOT NULL,
    route             TEXT NOT NULL,
    relay             TEXT,
    from_email        TEXT NOT NULL,
    envelope_from     TEXT NOT NULL,
    subject           TEXT NOT NULL,
    template          TEXT,
    tags              TEXT,
    metadata          TEXT,
    smtputf8          INTEGER NOT NULL,
    size              INTEGER NOT NULL,
    warnings          TEXT,
    content_purged_at INTEGER,
    kills             INTEGER NOT NULL DEFAULT 0,
    request           INTEGER
) STRICT;
CREATE INDEX messages_by_account ON messages (account);
CREATE INDEX messages_by_sender ON messages (account, from_email);
CREATE INDEX messages_by_template ON messages (account, template) WHERE template IS NOT NULL;
CREATE INDEX messages_by_message_id ON messages (message_id);
CREATE INDEX messages_by_request ON messages (request) WHERE request IS NOT NULL;
CREATE INDEX messages_closed ON messages (closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX messages_purgeable ON messages (closed_at) WHERE closed_at IS NOT NULL AND content_purged_at IS NULL;

CREATE TABLE recipients (
    rid                 INTEGER PRIMARY KEY,
    account             TEXT NOT NULL,
    email               TEXT NOT NULL,
    address_key         TEXT NOT NULL,
    name                TEXT NOT NULL,
    kind                TEXT NOT NULL,
    state               TEXT NOT NULL,
    route               TEXT NOT NULL,
    priority            INTEGER NOT NULL,
    due_at              INTEGER,
    expires_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    attempts            INTEGER NOT NULL DEFAULT 0,
    in_doubt            INTEGER NOT NULL DEFAULT 0,
    attempt             INTEGER,
    relay               TEXT,
    provider_message_id TEXT,
    last_code           INTEGER,
    last_enhanced       TEXT NOT NULL DEFAULT '',
    last_text           TEXT NOT NULL DEFAULT '',
    last_kind           TEXT NOT NULL DEFAULT '',
    -- whoever waits has a due time, and nobody else: the queue's partial indexes rest on it
    CHECK ((due_at IS NOT NULL) = (state IN ('queued', 'deferred')))
) STRICT;
CREATE INDEX recipients_waiting ON recipients (route, priority, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX recipients_expiring ON recipients (expires_at) WHERE due_at IS NOT NULL;
CREATE INDEX recipients_by_state ON recipients (account, state);
CREATE INDEX recipients_by_address ON recipients (account, address_key);
CREATE INDEX recipients_by_relay ON recipients (account, relay) WHERE relay IS NOT NULL;
CREATE INDEX recipients_by_provider_id ON recipients (provider_message_id) WHERE provider_message_id IS NOT NULL;

CREATE TABLE attempts (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    message            INTEGER NOT NULL,
    relay              TEXT NOT NULL,
    holder             TEXT NOT NULL,
    opened_at          INTEGER NOT NULL,
    lease_until        INTEGER NOT NULL,
    content_started_at INTEGER,
    closed_at          INTEGER,
    result             TEXT,
    session            TEXT,
    timings            TEXT,
    sealed_as          TEXT,
    detail             TEXT
) STRICT;
CREATE INDEX attempts_open ON attempts (holder, lease_until) WHERE closed_at IS NULL;
CREATE INDEX attempts_by_message ON attempts (message);

CREATE TABLE events (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    message   INTEGER NOT NULL,
    n         INTEGER,
    at        INTEGER NOT NULL,
    type      TEXT NOT NULL,
    attempt   INTEGER,
    data      TEXT
) STRICT;
CREATE INDEX events_by_message ON events (message);

CREATE TABLE contents (
    message INTEGER PRIMARY KEY,
    inline  BLOB NOT NULL,
    layout  TEXT
) STRICT;
CREATE TABLE blobs (
    sha256 BLOB PRIMARY KEY,
    data   BLOB NOT NULL
) STRICT;
CREATE TABLE content_blobs (
    message INTEGER NOT NULL,
    sha256  BLOB NOT NULL,
    PRIMARY KEY (message, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX content_blobs_by_blob ON content_blobs (sha256);

CREATE TABLE message_tags (
    account TEXT NOT NULL,
    name    TEXT NOT NULL,
    value   TEXT NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (account, name, message, value)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_tags_by_message ON message_tags (message);
CREATE TABLE message_metadata (
    account TEXT NOT NULL,
    name    TEXT NOT NULL,
    value   TEXT NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (account, name, value, message)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_metadata_by_message ON message_metadata (message);

CREATE TABLE requests (
    seq         INTEGER PRIMARY KEY,
    account     TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    answer      BLOB NOT NULL,
    expires_at  INTEGER NOT NULL,
    UNIQUE (account, key)
) STRICT;
CREATE INDEX requests_expiring ON requests (expires_at);

CREATE TABLE limits (
    bucket     TEXT PRIMARY KEY,
    state      BLOB NOT NULL,
    idle_after INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX limits_idle ON limits (idle_after);

CREATE TABLE suppressions (
    account     TEXT NOT NULL,
    address_key TEXT NOT NULL,
    reason      TEXT NOT NULL,
    email       TEXT NOT NULL,
    origin      TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    message     TEXT,
    detail      TEXT NOT NULL,
    PRIMARY KEY (account, address_key, reason)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    seq          INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    prefix       TEXT NOT NULL UNIQUE,
    digest       BLOB NOT NULL,
    account      TEXT NOT NULL,
    name         TEXT NOT NULL,
    scopes       TEXT NOT NULL,
    from_allowed TEXT NOT NULL,
    rate         TEXT,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER
) STRICT;

CREATE TABLE counters (
    state TEXT PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE heartbeat (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    at  INTEGER NOT NULL
) STRICT;
