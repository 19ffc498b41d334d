-- additive
-- What processes tell each other about relays: why an account takes no mail, who may log in to it, what happened to
-- relays, and what each process sees of them.

CREATE TABLE relay_troubles (
    account text COLLATE "C" NOT NULL,
    kind    text COLLATE "C" NOT NULL,
    mark    text COLLATE "C" NOT NULL,
    at      bigint NOT NULL,
    until   bigint,
    reason  text NOT NULL,
    probe   boolean NOT NULL,
    login   boolean NOT NULL,
    step    integer NOT NULL,
    times   integer NOT NULL,
    length  double precision NOT NULL,
    steps   text NOT NULL,
    PRIMARY KEY (account, kind, mark)
);

CREATE TABLE relay_logins (
    account     text COLLATE "C" PRIMARY KEY,
    proven_at   bigint NOT NULL,
    mark        text NOT NULL,
    asked       text NOT NULL,
    prober      text NOT NULL,
    lease_until bigint NOT NULL
);

CREATE TABLE relay_events (
    seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text COLLATE "C" NOT NULL,
    relay   text NOT NULL,
    at      bigint NOT NULL,
    kind    text NOT NULL,
    detail  text NOT NULL
);
CREATE INDEX relay_events_by_account ON relay_events (account, seq);
CREATE INDEX relay_events_by_time ON relay_events (at);

CREATE TABLE relay_views (
    holder      text COLLATE "C" NOT NULL,
    relay       text COLLATE "C" NOT NULL,
    seen_at     bigint NOT NULL,
    connections integer NOT NULL,
    in_flight   integer NOT NULL,
    sent        bigint NOT NULL,
    last_reply  text NOT NULL,
    reply_at    bigint NOT NULL,
    last_error  text NOT NULL,
    error_at    bigint NOT NULL,
    PRIMARY KEY (holder, relay)
) WITH (fillfactor = 50);
