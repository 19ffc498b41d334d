-- What processes tell each other about relays: why an account takes no mail, who may log in to it, what happened to
-- relays, and what each process sees of them.

CREATE TABLE relay_troubles (
    account TEXT NOT NULL,
    kind    TEXT NOT NULL,
    mark    TEXT NOT NULL,
    at      INTEGER NOT NULL,
    until   INTEGER,
    reason  TEXT NOT NULL,
    probe   INTEGER NOT NULL,
    login   INTEGER NOT NULL,
    step    INTEGER NOT NULL,
    times   INTEGER NOT NULL,
    length  REAL NOT NULL,
    steps   TEXT NOT NULL,
    PRIMARY KEY (account, kind, mark)
) STRICT, WITHOUT ROWID;

CREATE TABLE relay_logins (
    account     TEXT PRIMARY KEY,
    proven_at   INTEGER NOT NULL,
    mark        TEXT NOT NULL,
    asked       TEXT NOT NULL,
    prober      TEXT NOT NULL,
    lease_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE relay_events (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    relay   TEXT NOT NULL,
    at      INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    detail  TEXT NOT NULL
) STRICT;
CREATE INDEX relay_events_by_account ON relay_events (account);
CREATE INDEX relay_events_by_time ON relay_events (at);

CREATE TABLE relay_views (
    holder      TEXT NOT NULL,
    relay       TEXT NOT NULL,
    seen_at     INTEGER NOT NULL,
    connections INTEGER NOT NULL,
    in_flight   INTEGER NOT NULL,
    sent        INTEGER NOT NULL,
    last_reply  TEXT NOT NULL,
    reply_at    INTEGER NOT NULL,
    last_error  TEXT NOT NULL,
    error_at    INTEGER NOT NULL,
    PRIMARY KEY (holder, relay)
) STRICT, WITHOUT ROWID;
