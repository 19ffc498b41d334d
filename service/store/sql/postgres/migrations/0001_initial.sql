-- additive
-- Small hot rows (messages, recipients, attempts), the log (events), and the bytes apart (contents, blobs).
-- Times are milliseconds since the epoch. rid = message * 1000 + n: a recipient's place within its message.
-- What is compared or sorted is text in the collation "C", so that an operating system's locale decides nothing.

CREATE TABLE messages (
    seq               bigint PRIMARY KEY,
    id                text COLLATE "C" NOT NULL,
    account           text COLLATE "C" NOT NULL,
    message_id        text COLLATE "C" NOT NULL,
    created_at        bigint NOT NULL,
    scheduled_at      bigint,
    expires_at        bigint NOT NULL,
    closed_at         bigint,
    priority          integer NOT NULL,
    delivery          text NOT NULL,
    route             text COLLATE "C" NOT NULL,
    relay             text,
    from_email        text COLLATE "C" NOT NULL,
    envelope_from     text NOT NULL,
    subject           text NOT NULL,
    template          text COLLATE "C",
    tags              text,
    metadata          text,
    smtputf8          boolean NOT NULL,
    size              bigint NOT NULL,
    warnings          text,
    content_purged_at bigint,
    kills             integer NOT NULL DEFAULT 0,
    request           bigint,
    category          text COLLATE "C" NOT NULL DEFAULT '',
    dsn               text
) WITH (fillfactor = 85);
CREATE SEQUENCE messages_seq OWNED BY messages.seq;
CREATE UNIQUE INDEX messages_by_id ON messages (id);
CREATE INDEX messages_by_account ON messages (account, seq);
CREATE INDEX messages_by_sender ON messages (account, from_email, seq);
CREATE INDEX messages_by_template ON messages (account, template, seq) WHERE template IS NOT NULL;
CREATE INDEX messages_by_message_id ON messages (message_id);
CREATE INDEX messages_by_request ON messages (request) WHERE request IS NOT NULL;
CREATE INDEX messages_closed ON messages (closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX messages_purgeable ON messages (closed_at) WHERE closed_at IS NOT NULL AND content_purged_at IS NULL;

CREATE TABLE recipients (
    rid                 bigint PRIMARY KEY,
    account             text COLLATE "C" NOT NULL,
    email               text NOT NULL,
    address_key         text COLLATE "C" NOT NULL,
    name                text NOT NULL,
    kind                text NOT NULL,
    state               text COLLATE "C" NOT NULL,
    route               text COLLATE "C" NOT NULL,
    priority            integer NOT NULL,
    due_at              bigint,
    expires_at          bigint NOT NULL,
    updated_at          bigint NOT NULL,
    attempts            integer NOT NULL DEFAULT 0,
    in_doubt            integer NOT NULL DEFAULT 0,
    attempt             bigint,
    relay               text COLLATE "C",
    provider_message_id text COLLATE "C",
    last_code           integer,
    last_enhanced       text NOT NULL DEFAULT '',
    last_text           text NOT NULL DEFAULT '',
    last_kind           text NOT NULL DEFAULT '',
    counted_kind        text NOT NULL DEFAULT '',
    kind_count          integer NOT NULL DEFAULT 0,
    reconnected_at      bigint,
    held_by             text,
    -- whoever waits has a due time, and nobody else: the queue's partial indexes rest on it
    CHECK ((due_at IS NOT NULL) = (state IN ('queued', 'deferred')))
) WITH (fillfactor = 85);
CREATE INDEX recipients_waiting ON recipients (route, priority, due_at, rid) WHERE due_at IS NOT NULL;
CREATE INDEX recipients_expiring ON recipients (expires_at, rid) WHERE due_at IS NOT NULL;
CREATE INDEX recipients_by_state ON recipients (account, state, rid);
CREATE INDEX recipients_by_address ON recipients (account, address_key, rid);
CREATE INDEX recipients_by_relay ON recipients (account, relay, rid) WHERE relay IS NOT NULL;
CREATE INDEX recipients_by_provider_id ON recipients (provider_message_id) WHERE provider_message_id IS NOT NULL;

CREATE TABLE attempts (
    id                 bigint PRIMARY KEY,
    message            bigint NOT NULL,
    relay              text NOT NULL,
    holder             text COLLATE "C" NOT NULL,
    opened_at          bigint NOT NULL,
    lease_until        bigint NOT NULL,
    content_started_at bigint,
    closed_at          bigint,
    result             text,
    session            text,
    timings            text,
    sealed_as          text,
    signed_by          text,
    detail             text,
    ahead              boolean NOT NULL DEFAULT false,
    taken              text
) WITH (fillfactor = 85);
CREATE SEQUENCE attempts_id OWNED BY attempts.id;
CREATE INDEX attempts_open ON attempts (holder, id) WHERE closed_at IS NULL;
CREATE INDEX attempts_by_message ON attempts (message, id);

CREATE TABLE holders (
    holder  text COLLATE "C" PRIMARY KEY,
    seen_at bigint NOT NULL
);

CREATE TABLE events (
    seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message bigint NOT NULL,
    n       integer,
    at      bigint NOT NULL,
    type    text NOT NULL,
    attempt bigint,
    data    text
);
CREATE INDEX events_by_message ON events (message, seq);

CREATE TABLE contents (
    message bigint PRIMARY KEY,
    inline  bytea NOT NULL,
    layout  text
);
CREATE TABLE blobs (
    sha256 bytea PRIMARY KEY,
    data   bytea NOT NULL
);
CREATE TABLE content_blobs (
    message bigint NOT NULL,
    sha256  bytea NOT NULL,
    PRIMARY KEY (message, sha256)
);
CREATE INDEX content_blobs_by_blob ON content_blobs (sha256);
-- mail is mostly compressed already or short: lz4 or pglz would cost more than it saves
ALTER TABLE contents ALTER COLUMN inline SET STORAGE EXTERNAL;
ALTER TABLE blobs ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE message_tags (
    account text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    value   text COLLATE "C" NOT NULL,
    message bigint NOT NULL,
    PRIMARY KEY (account, name, message, value)
);
CREATE INDEX message_tags_by_message ON message_tags (message);
CREATE TABLE message_metadata (
    account text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    value   text COLLATE "C" NOT NULL,
    message bigint NOT NULL,
    PRIMARY KEY (account, name, value, message)
);
CREATE INDEX message_metadata_by_message ON message_metadata (message);

CREATE TABLE requests (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account     text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    answer      bytea NOT NULL,
    expires_at  bigint NOT NULL,
    message     bigint
);
CREATE UNIQUE INDEX requests_by_key ON requests (account, key);
CREATE INDEX requests_expiring ON requests (expires_at);

CREATE TABLE limits (
    bucket     text COLLATE "C" PRIMARY KEY,
    state      bytea NOT NULL,
    idle_after bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX limits_idle ON limits (idle_after);

CREATE TABLE suppressions (
    account     text COLLATE "C" NOT NULL,
    address_key text COLLATE "C" NOT NULL,
    reason      text COLLATE "C" NOT NULL,
    category    text COLLATE "C" NOT NULL DEFAULT '',
    email       text NOT NULL,
    origin      text NOT NULL,
    created_at  bigint NOT NULL,
    message     text,
    detail      text NOT NULL,
    PRIMARY KEY (account, address_key, reason, category)
);

CREATE TABLE api_keys (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           text COLLATE "C" NOT NULL,
    prefix       text COLLATE "C" NOT NULL,
    digest       bytea NOT NULL,
    account      text COLLATE "C" NOT NULL,
    name         text NOT NULL,
    scopes       text NOT NULL,
    from_allowed text NOT NULL,
    rate         text,
    created_at   bigint NOT NULL,
    expires_at   bigint,
    revoked_at   bigint
);
CREATE UNIQUE INDEX api_keys_by_id ON api_keys (id);
CREATE UNIQUE INDEX api_keys_by_prefix ON api_keys (prefix);

CREATE TABLE template_versions (
    name       text COLLATE "C" NOT NULL,
    number     bigint NOT NULL,
    digest     text COLLATE "C" NOT NULL,
    files      text NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (name, number)
);
CREATE UNIQUE INDEX template_versions_by_digest ON template_versions (name, digest);
CREATE TABLE published_templates (
    name         text COLLATE "C" PRIMARY KEY,
    number       bigint NOT NULL,
    published_at bigint NOT NULL
);

CREATE TABLE relay_offers (
    endpoint   text COLLATE "C" PRIMARY KEY,
    smtputf8   boolean NOT NULL,
    max_size   bigint,
    learned_at bigint NOT NULL
);

-- one row of each state for each shard; a writer keeps to its own shard, so that replicas don't wait for each other here
CREATE TABLE counters (
    shard integer NOT NULL,
    state text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (shard, state)
) WITH (fillfactor = 20);

CREATE TABLE heartbeat (
    one integer PRIMARY KEY CHECK (one = 1),
    at  bigint NOT NULL
) WITH (fillfactor = 20);

-- rows of a queue die young: clear them away after thousands, whatever share of the table that is
ALTER TABLE recipients SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE attempts SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
ALTER TABLE limits SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE counters SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE heartbeat SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
