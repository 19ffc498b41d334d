-- Every form that a template ever had, so that `welcome@3` stays what it was; and categories of unsubscribing.

CREATE TABLE template_versions (
    name       TEXT NOT NULL,
    number     INTEGER NOT NULL,
    digest     TEXT NOT NULL,
    files      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (name, number)
) STRICT;
CREATE UNIQUE INDEX template_versions_by_digest ON template_versions (name, digest);

-- which version a name means, for templates that are published through the API and stand in no folder
CREATE TABLE published_templates (
    name         TEXT PRIMARY KEY,
    number       INTEGER NOT NULL,
    published_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE suppressions_by_category (
    account     TEXT NOT NULL,
    address_key TEXT NOT NULL,
    reason      TEXT NOT NULL,
    category    TEXT NOT NULL,
    email       TEXT NOT NULL,
    origin      TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    message     TEXT,
    detail      TEXT NOT NULL,
    PRIMARY KEY (account, address_key, reason, category)
) STRICT, WITHOUT ROWID;
INSERT INTO suppressions_by_category
SELECT account, address_key, reason, '', email, origin, created_at, message, detail FROM suppressions;
DROP TABLE suppressions;
ALTER TABLE suppressions_by_category RENAME TO suppressions;

ALTER TABLE messages ADD COLUMN category TEXT NOT NULL DEFAULT '';
