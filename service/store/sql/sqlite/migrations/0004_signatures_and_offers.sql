-- Which DKIM keys signed an attempt, beside the sender rule that it was sealed with.

ALTER TABLE attempts ADD COLUMN signed_by TEXT;

-- What relays offered to a session, so that a process that opens none can refuse what none of them takes.
CREATE TABLE relay_offers (
    endpoint   TEXT PRIMARY KEY,
    smtputf8   INTEGER NOT NULL,
    max_size   INTEGER,
    learned_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
