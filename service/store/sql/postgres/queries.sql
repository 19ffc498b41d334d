-- Every statement the store runs on PostgreSQL. `-- method: part --`, one sentence, the index that serves it.
-- The method is a method of service.store.port.Store; the same names stand in every dialect, but for statements that
-- one of them does not need. `:rows` is a JSON array of objects: what a whole group has to say in one statement.
--
-- Locks are taken in one order, whoever asks: requests, messages, attempts, limits, blobs, counters; of one table by
-- key, or with SKIP LOCKED. A message's row is the lock of its recipients.

-- open: bounds --
-- What holds until the end of this transaction, also behind a pooler, whose next connection may have other defaults: a
-- commit is synced before it is answered. Every statement here is meant for an index, so statistics that are out of date
-- must not talk the planner out of it.
SELECT set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN 'on'
        ELSE current_setting('synchronous_commit') END, true),
    set_config('statement_timeout', :statement, true), set_config('lock_timeout', :lock, true),
    set_config('idle_in_transaction_session_timeout', :idle, true), set_config('enable_seqscan', 'off', true),
    set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
    set_config('enable_bitmapscan', 'off', true), set_config('enable_material', 'off', true),
    set_config('jit', 'off', true);

-- ping: still here --
-- Last before a commit: the root of -1 if the mail was moved elsewhere. Who moves it holds all tables against writers
-- until the mark stands, so whoever has written sees it, however long he stood still. A commit that waits for a standby
-- must not be reported as done because a statement's time is over, so that time has no end. schema_steps primary key.
SELECT set_config('statement_timeout', '0', true),
    sqrt(CASE WHEN EXISTS (SELECT 1 FROM schema_steps WHERE number = 1000001) THEN -1 ELSE 0 END);

-- open: server --
-- What a server must promise before it is trusted with mail.
SELECT current_setting('server_version_num')::integer, current_setting('fsync'), current_setting('full_page_writes'),
    current_setting('synchronous_commit'), current_setting('default_transaction_isolation'), pg_is_in_recovery(),
    current_setting('server_encoding'), current_setting('transaction_read_only');

-- open: schema lock --
-- One process at a time changes the schema.
SELECT pg_advisory_xact_lock(7310003);

-- open: schema stays --
-- Nobody changes the schema within this transaction.
SELECT pg_advisory_xact_lock_shared(7310003);

-- open: newer steps --
-- Steps with which processes that don't know them can't live. schema_steps primary key.
SELECT number FROM schema_steps WHERE number > :knows AND number < 1000000 AND NOT additive;

-- open: older holders --
-- Processes that live, as far as one can tell, and don't know a step of the schema. Whole table.
SELECT holder FROM holders
WHERE knows < :step AND seen_at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint - :silence::bigint
ORDER BY holder;

-- open: holder --
-- I live. holders primary key.
INSERT INTO holders (holder, seen_at, knows)
VALUES (:holder, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, :knows)
ON CONFLICT (holder) DO UPDATE SET seen_at = excluded.seen_at, knows = excluded.knows;

-- close: holder --
-- I end: what I left open is an orphan at once. holders primary key.
DELETE FROM holders WHERE holder = :holder;

-- ping: write --
-- A durable write that changes nothing anybody reads. heartbeat primary key.
INSERT INTO heartbeat (one, at) VALUES (1, :at) ON CONFLICT (one) DO UPDATE SET at = excluded.at;

-- ping: small memory --
-- What does not fit into so little goes to a temporary file on the disk that holds the database's tables.
SELECT set_config('work_mem', '64kB', true), set_config('temp_tablespaces', '', true);

-- ping: room --
-- Fill 2 MiB of a temporary file, which is gone at the end: a row may find its place on a full disk, this does not. No table.
SELECT count(*) FROM generate_series(1, 120000);

-- ping: look --
-- Whether the server answers.
SELECT 1;

-- on_hint: listen --
-- Hear of mail that others queued. A channel's name can't be bound.
LISTEN postroom_queued;

-- on_hint: unsynced --
-- A hint is not worth a sync.
SET LOCAL synchronous_commit = off;

-- on_hint: tell --
-- Say that mail was queued, and who says it.
SELECT pg_notify('postroom_queued', :holder);

-- accept: find requests --
-- What keys were answered with. requests_by_key.
SELECT r.seq, r.account, r.key, r.fingerprint, r.answer
FROM unnest(:accounts::text[], :keys::text[]) AS k (account, key)
JOIN requests r ON r.account = k.account COLLATE "C" AND r.key = k.key COLLATE "C";

-- accept: find request --
-- What a key was answered with. requests_by_key.
SELECT seq, fingerprint, answer FROM requests WHERE account = :account AND key = :key;

-- accept: requests --
-- Keep answers under their keys, in the messages' own transaction; a twin elsewhere is waited for. requests_by_key.
INSERT INTO requests (account, key, fingerprint, answer, expires_at)
SELECT * FROM unnest(:accounts::text[], :keys::text[], :fingerprints::bytea[], :answers::bytea[], :expires_at::bigint[])
ON CONFLICT (account, key) DO NOTHING RETURNING seq, account, key;

-- accept: requests of others --
-- A key whose first claimant was refused goes to the next one of the same group. requests primary key.
UPDATE requests r SET fingerprint = n.fingerprint, answer = n.answer, expires_at = n.expires_at
FROM unnest(:seqs::bigint[], :fingerprints::bytea[], :answers::bytea[], :expires_at::bigint[])
    AS n (seq, fingerprint, answer, expires_at)
WHERE r.seq = n.seq;

-- accept: requests of nobody --
-- A key whose request was refused is not burnt. requests primary key.
DELETE FROM requests WHERE seq = ANY(:seqs::bigint[]);

-- accept: items of --
-- The messages that items' own keys belong to. requests primary key.
UPDATE requests r SET message = n.message
FROM unnest(:seqs::bigint[], :messages::bigint[]) AS n (seq, message) WHERE r.seq = n.seq;

-- accept: lock limits --
-- Hold limiters and quotas until the end, those that are new included. Nothing is written to the others. limits primary key.
INSERT INTO limits (bucket, state, idle_after) SELECT b, '', 0 FROM unnest(:buckets::text[]) AS b
ON CONFLICT (bucket) DO UPDATE SET state = limits.state WHERE false;

-- accept: find limits --
-- The states of limiters and quotas. limits primary key.
SELECT l.bucket, l.state FROM unnest(:buckets::text[]) AS b JOIN limits l ON l.bucket = b COLLATE "C";

-- accept: limits --
-- Write the states of limiters and quotas back. limits primary key.
UPDATE limits l SET state = n.state, idle_after = n.idle_after
FROM unnest(:buckets::text[], :states::bytea[], :idle_after::bigint[]) AS n (bucket, state, idle_after)
WHERE l.bucket = n.bucket COLLATE "C";

-- accept: numbers --
-- Row numbers for messages, in the order of acceptance.
SELECT nextval('messages_seq') FROM generate_series(1, :count::integer);

-- accept: messages --
-- The messages' small rows. Append.
INSERT INTO messages (seq, id, account, message_id, created_at, scheduled_at, expires_at, closed_at, priority, delivery,
    route, relay, from_email, envelope_from, subject, template, tags, metadata, smtputf8, size, warnings, request,
    category, dsn)
SELECT * FROM json_to_recordset(:rows::json) AS n (seq bigint, id text, account text, message_id text,
    created_at bigint, scheduled_at bigint, expires_at bigint, closed_at bigint, priority integer, delivery text,
    route text, relay text, from_email text, envelope_from text, subject text, template text, tags text, metadata text,
    smtputf8 boolean, size bigint, warnings text, request bigint, category text, dsn text);

-- accept: recipients --
-- Forward-paths. Append.
INSERT INTO recipients (rid, account, email, address_key, name, kind, state, route, priority, due_at, expires_at,
    updated_at)
SELECT * FROM json_to_recordset(:rows::json) AS n (rid bigint, account text, email text, address_key text, name text,
    kind text, state text, route text, priority integer, due_at bigint, expires_at bigint, updated_at bigint);

-- accept: contents --
-- The bytes; `layout` says where shared blobs stand in them. Append.
INSERT INTO contents (message, inline, layout)
SELECT * FROM unnest(:messages::bigint[], :inlines::bytea[], :layouts::text[]);

-- accept: blob --
-- A large piece, kept once; one that is there is held, so that nobody takes it away meanwhile. blobs primary key.
INSERT INTO blobs (sha256, data) VALUES (:sha256, :data)
ON CONFLICT (sha256) DO UPDATE SET sha256 = excluded.sha256 WHERE false;

-- accept: content blobs --
-- Which message needs which blob. content_blobs primary key.
INSERT INTO content_blobs (message, sha256) SELECT * FROM unnest(:messages::bigint[], :blobs::bytea[])
ON CONFLICT (message, sha256) DO NOTHING;

-- accept: tags --
-- For the filter by tag. message_tags primary key.
INSERT INTO message_tags (account, name, value, message)
SELECT * FROM json_to_recordset(:rows::json) AS n (account text, name text, value text, message bigint)
ON CONFLICT (account, name, message, value) DO NOTHING;

-- accept: metadata --
-- For the filter by metadata. message_metadata primary key.
INSERT INTO message_metadata (account, name, value, message)
SELECT * FROM json_to_recordset(:rows::json) AS n (account text, name text, value text, message bigint)
ON CONFLICT (account, name, value, message) DO NOTHING;

-- accept: events --
-- Lines of the delivery log, in the order given. Append.
INSERT INTO events (message, n, at, type, attempt, data)
SELECT * FROM json_to_recordset(:rows::json) AS n (message bigint, n integer, at bigint, type text, attempt bigint,
    data text);

-- accept: counts --
-- Add to this writer's counters of states, last of all. counters primary key.
INSERT INTO counters (shard, state, count)
SELECT :shard, s, d FROM unnest(:states::text[], :deltas::bigint[]) AS n (s, d)
ON CONFLICT (shard, state) DO UPDATE SET count = counters.count + excluded.count;

-- suppressed: by address --
-- Why addresses get no mail, or none of one category. suppressions primary key.
SELECT DISTINCT ON (s.address_key) s.address_key, s.reason, s.category
FROM unnest(:keys::text[]) AS k JOIN suppressions s ON s.account = :account AND s.address_key = k COLLATE "C"
    AND s.category IN ('', :category)
ORDER BY s.address_key, s.reason, s.category;

-- claim: waiting --
-- The first due messages of each lane, held; those that another process holds are passed over. recipients_waiting,
-- messages primary key.
SELECT l.place, d.seq FROM json_to_recordset(:rows::json) AS l (place integer, route text, priority integer, most integer)
CROSS JOIN LATERAL (
    SELECT m.seq FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
    WHERE r.route = l.route AND r.priority = l.priority AND r.due_at <= :now AND m.seq <> ALL(:seen::bigint[])
    ORDER BY r.due_at, r.rid LIMIT l.most FOR UPDATE OF m SKIP LOCKED) d;

-- claim: message --
-- What a sender needs to know, and the sender rule of the last attempt in doubt whose rule is known. messages primary
-- key, attempts_by_message.
SELECT m.seq, m.id, m.account, m.message_id, m.delivery, m.created_at,
    greatest(m.created_at, coalesce(m.scheduled_at, 0)), m.expires_at, m.from_email, m.envelope_from, m.smtputf8,
    m.size, m.dsn,
    (SELECT a.sealed_as FROM attempts a WHERE a.message = m.seq AND a.result = 'in_doubt' AND a.sealed_as IS NOT NULL
        ORDER BY a.id DESC LIMIT 1)
FROM messages m WHERE m.seq = ANY(:seqs::bigint[]);

-- claim: recipients --
-- The due recipients of messages on a route, as many as are wanted of each, and why some of them get no mail any more.
-- messages primary key, recipients primary key, suppressions primary key.
SELECT r.rid, r.email, r.address_key, r.attempts, r.in_doubt, r.expires_at, r.state, r.route, r.counted_kind,
    r.kind_count, r.reconnected_at,
    (SELECT s.reason FROM suppressions s WHERE s.account = m.account AND s.address_key = r.address_key
        AND s.category IN ('', m.category) LIMIT 1)
FROM unnest(:seqs::bigint[], :routes::text[], :mosts::integer[]) AS n (seq, route, most)
JOIN messages m ON m.seq = n.seq CROSS JOIN LATERAL (
    SELECT * FROM (SELECT * FROM recipients y WHERE y.rid >= m.seq * 1000 AND y.rid < m.seq * 1000 + 1000 OFFSET 0) x
    WHERE x.due_at <= :now AND x.route = n.route ORDER BY x.rid LIMIT n.most) r
ORDER BY r.rid;

-- claim: numbers --
-- Ids for attempts: a fence that only grows, known before the commit whose answer may get lost.
SELECT nextval('attempts_id') FROM generate_series(1, :count::integer);

-- claim: attempts --
-- Open attempts; their ids are the fence tokens. The lease is counted on the server's clock. Append.
INSERT INTO attempts (id, message, relay, sealed_as, holder, opened_at, lease_until, ahead, taken)
SELECT n.id, n.message, n.relay, n.sealed_as, :holder, :now,
    coalesce(:leased_at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) + :lease, n.ahead, n.taken
FROM json_to_recordset(:rows::json) AS n (id bigint, message bigint, relay text, sealed_as text, ahead boolean,
    taken text);

-- claim: lease --
-- Recipients are being sent under these fences. recipients primary key.
UPDATE recipients r SET state = n.state, attempt = n.attempt, relay = n.relay, due_at = NULL, updated_at = :now,
    held_by = NULL
FROM json_to_recordset(:rows::json) AS n (rid bigint, state text, attempt bigint, relay text) WHERE r.rid = n.rid;

-- claim: put off --
-- Quotas of their own hold recipients: out of the way of those behind them, until then. recipients primary key.
UPDATE recipients r SET due_at = n.due_at, held_by = n.held_by
FROM json_to_recordset(:rows::json) AS n (rid bigint, due_at bigint, held_by text) WHERE r.rid = n.rid;

-- claim: end --
-- Waiting recipients end without being sent (expired, suppressed). recipients primary key.
UPDATE recipients r SET state = n.state, due_at = NULL, updated_at = :now, last_kind = n.why
FROM json_to_recordset(:rows::json) AS n (rid bigint, state text, why text)
WHERE r.rid = n.rid AND r.due_at IS NOT NULL;

-- delivery_content: by id --
-- The bytes of a message, with its shared blobs. messages_by_id, contents primary key, content_blobs primary key, blobs
-- primary key.
SELECT c.message, c.inline, c.layout, ARRAY(SELECT u.sha256 FROM content_blobs u WHERE u.message = m.seq
    ORDER BY u.sha256), ARRAY(SELECT b.data FROM content_blobs u JOIN blobs b ON b.sha256 = u.sha256
    WHERE u.message = m.seq ORDER BY u.sha256)
FROM messages m JOIN contents c ON c.message = m.seq WHERE m.id = :id;

-- delivery_content: by seq --
-- The bytes of messages, with their shared blobs. contents primary key, content_blobs primary key, blobs primary key.
SELECT c.message, c.inline, c.layout, ARRAY(SELECT u.sha256 FROM content_blobs u WHERE u.message = c.message
    ORDER BY u.sha256), ARRAY(SELECT b.data FROM content_blobs u JOIN blobs b ON b.sha256 = u.sha256
    WHERE u.message = c.message ORDER BY u.sha256)
FROM contents c WHERE c.message = ANY(:seqs::bigint[]);

-- start_content: mark --
-- The content of deliveries is about to start (at_most_once, or claimed ahead); only while the lease holds. attempts
-- primary key.
UPDATE attempts a SET content_started_at = n.at FROM unnest(:ids::bigint[], :times::bigint[]) AS n (id, at)
WHERE a.id = n.id AND a.closed_at + 0 IS NULL RETURNING a.id;

-- settle: messages --
-- Hold the messages of attempts, in one order. attempts primary key, messages primary key.
SELECT m.seq FROM messages m WHERE m.seq IN (SELECT a.message FROM attempts a WHERE a.id = ANY(:ids::bigint[]))
ORDER BY m.seq FOR UPDATE OF m;

-- settle: attempt --
-- Close attempts, once; who claimed them has written the sender rules that it expects. attempts primary key.
UPDATE attempts a SET closed_at = n.closed_at, result = n.result, session = n.session, timings = n.timings,
    sealed_as = coalesce(n.sealed_as, a.sealed_as), signed_by = n.signed_by, detail = n.detail
FROM json_to_recordset(:rows::json) AS n (id bigint, closed_at bigint, result text, session text, timings text,
    sealed_as text, signed_by text, detail text)
WHERE a.id = n.id AND a.closed_at + 0 IS NULL RETURNING a.id, a.message, a.relay, a.taken;

-- settle: recipient --
-- Apply events to recipients that we still hold: state and fence. Charged attempts that end alike are counted.
-- recipients primary key.
UPDATE recipients r SET state = n.state, due_at = n.due_at, attempts = r.attempts + n.charged,
    in_doubt = r.in_doubt + n.doubts, provider_message_id = coalesce(n.provider_message_id, r.provider_message_id),
    last_code = n.code, last_enhanced = n.enhanced, last_text = n.text, last_kind = n.kind, updated_at = n.at,
    counted_kind = CASE n.charged WHEN 1 THEN n.kind ELSE r.counted_kind END,
    kind_count = CASE WHEN n.charged = 0 THEN r.kind_count WHEN n.kind = r.counted_kind THEN r.kind_count + 1 ELSE 1 END,
    reconnected_at = coalesce(n.reconnected_at, r.reconnected_at)
FROM json_to_recordset(:rows::json) AS n (rid bigint, attempt bigint, state text, due_at bigint, charged integer,
    doubts integer, provider_message_id text, code integer, enhanced text, text text, kind text, at bigint,
    reconnected_at bigint)
WHERE r.rid = n.rid AND r.state || '' = 'sending' AND r.attempt = n.attempt RETURNING r.rid, r.attempt, r.email, r.address_key;

-- settle: route --
-- What an attempt held goes by another route from here on, since its relay can't carry the message; so do those of the
-- message that would have been with it if more could go at once. recipients primary key,
-- messages primary key.
UPDATE recipients SET route = :route WHERE rid >= :first AND rid < :first + 1000 AND (attempt = :attempt
    OR (due_at <= :due_by AND route = (SELECT m.route FROM messages m WHERE m.seq = :seq)));

-- settle: message route --
-- The route that is shown of a message. messages primary key.
UPDATE messages SET route = :route WHERE seq = :seq;

-- settle: close --
-- Close messages none of whose recipients is open any more. messages primary key, recipients primary key.
UPDATE messages m SET closed_at = :now FROM unnest(:seqs::bigint[]) AS s
WHERE m.seq = s AND m.closed_at IS NULL AND NOT EXISTS (
    SELECT 1 FROM recipients r WHERE r.rid >= m.seq * 1000 AND r.rid < m.seq * 1000 + 1000
        AND r.state IN ('queued', 'sending', 'deferred'));

-- heartbeat: renew --
-- Renew the leases of one holder, on the server's clock; what is being closed this moment needs none. attempts_open,
-- attempts primary key.
UPDATE attempts SET lease_until = coalesce(:leased_at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) + :lease
WHERE id = ANY(ARRAY(SELECT a.id FROM attempts a WHERE a.holder = :holder AND a.closed_at IS NULL
    FOR UPDATE SKIP LOCKED)) AND closed_at + 0 IS NULL RETURNING id;

-- rescue: orphans --
-- Open attempts of others whose lease is over on the server's clock (not if living ones are spared), or whose holder has
-- ended, held with their messages; all, or one. attempts_open, messages primary key, holders primary key.
SELECT a.id, a.message, a.content_started_at, a.ahead, m.id, m.account, m.delivery, m.kills, m.expires_at
FROM attempts a JOIN messages m ON m.seq = a.message
WHERE a.closed_at IS NULL AND a.holder <> :own
    AND ((NOT :spare::boolean
            AND a.lease_until < coalesce(:leased_at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint))
        OR NOT EXISTS (SELECT 1 FROM holders h WHERE h.holder = a.holder))
    AND (:only::bigint IS NULL OR a.id = :only)
LIMIT 500 FOR UPDATE OF m, a SKIP LOCKED;

-- rescue: recipients --
-- What orphaned attempts held. recipients primary key.
SELECT r.rid, r.attempt, r.in_doubt FROM unnest(:messages::bigint[], :attempts::bigint[]) AS o (message, attempt)
CROSS JOIN LATERAL (
    SELECT * FROM recipients x WHERE x.rid >= o.message * 1000 AND x.rid < o.message * 1000 + 1000 OFFSET 0) r
WHERE r.state = 'sending' AND r.attempt = o.attempt ORDER BY r.rid;

-- rescue: kill --
-- Messages whose sender died once more. messages primary key.
UPDATE messages m SET kills = m.kills + k.times
FROM (SELECT s, count(*)::integer FROM unnest(:seqs::bigint[]) AS s GROUP BY s) AS k (seq, times) WHERE m.seq = k.seq;

-- due_routes: lanes --
-- Each lane that waits (a route and a priority) with its first due time. recipients_waiting: one seek for each lane.
WITH RECURSIVE lanes AS (
    (SELECT route, priority, due_at FROM recipients WHERE due_at IS NOT NULL ORDER BY route, priority, due_at LIMIT 1)
    UNION ALL
    SELECT n.route, n.priority, n.due_at FROM lanes l CROSS JOIN LATERAL (
        SELECT r.route, r.priority, r.due_at FROM recipients r
        WHERE r.due_at IS NOT NULL AND (r.route, r.priority) > (l.route, l.priority)
        ORDER BY r.route, r.priority, r.due_at LIMIT 1) n)
SELECT route, priority, due_at FROM lanes;

-- expire: due --
-- Waiting recipients whose ttl is over, in order, their messages held. recipients_expiring, messages primary key.
SELECT r.rid FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
WHERE r.due_at IS NOT NULL AND r.expires_at <= :now ORDER BY r.expires_at, r.rid LIMIT :limit
FOR UPDATE OF m SKIP LOCKED;

-- expire: still due --
-- Those of them that still wait, now that nobody else can change them. recipients primary key.
SELECT rid, state FROM recipients WHERE rid = ANY(:rids::bigint[]) AND due_at IS NOT NULL AND expires_at <= :now
ORDER BY rid;

-- get_message: by id --
-- One message of an account. messages_by_id.
SELECT seq, id, account, message_id, created_at, scheduled_at, expires_at, closed_at, priority, delivery, route, relay,
    from_email, envelope_from, subject, template, tags, metadata, size, content_purged_at, warnings
FROM messages WHERE id = :id AND account = :account;

-- get_message: by seq --
-- Messages by their row numbers. messages primary key.
SELECT seq, id, account, message_id, created_at, scheduled_at, expires_at, closed_at, priority, delivery, route, relay,
    from_email, envelope_from, subject, template, tags, metadata, size, content_purged_at, warnings
FROM messages WHERE seq = ANY(:seqs::bigint[]);

-- get_message: recipients --
-- The recipients of one message, in order, in the statement that finds it. messages_by_id, recipients primary key.
SELECT r.rid, r.email, r.name, r.kind, r.state, r.updated_at, r.due_at, r.attempts, r.in_doubt, r.relay,
    r.provider_message_id, r.last_code, r.last_enhanced, r.last_text, r.last_kind, r.held_by
FROM messages m CROSS JOIN LATERAL (
    SELECT * FROM recipients x WHERE x.rid >= m.seq * 1000 AND x.rid < m.seq * 1000 + 1000 OFFSET 0) r
WHERE m.id = :id AND m.account = :account ORDER BY r.rid;

-- get_message: recipients by seq --
-- The recipients of messages, in order. recipients primary key.
SELECT r.rid, r.email, r.name, r.kind, r.state, r.updated_at, r.due_at, r.attempts, r.in_doubt, r.relay,
    r.provider_message_id, r.last_code, r.last_enhanced, r.last_text, r.last_kind, r.held_by
FROM unnest(:seqs::bigint[]) AS s CROSS JOIN LATERAL (
    SELECT * FROM recipients x WHERE x.rid >= s * 1000 AND x.rid < s * 1000 + 1000 OFFSET 0) r
ORDER BY r.rid;

-- fragment: other conditions --
-- What every list below adds: each condition that was given holds for the message. Checked row by row, by
-- message_tags_by_message, message_metadata_by_message and the recipients primary key.
(:from_email::text IS NULL OR m.from_email = :from_email)
    AND (:template::text IS NULL OR m.template = :template OR starts_with(m.template, :template || '@'))
    AND (:message_id::text IS NULL OR m.message_id = :message_id)
    AND (:since::bigint IS NULL OR m.created_at >= :since) AND (:until::bigint IS NULL OR m.created_at < :until)
    AND (:scheduled_after::bigint IS NULL OR m.scheduled_at > :scheduled_after)
    AND (:tag::text IS NULL OR EXISTS (SELECT 1 FROM message_tags t WHERE t.message = m.seq AND t.name = :tag
        AND (:tag_value::text IS NULL OR t.value = :tag_value)))
    AND (:metadata::json IS NULL OR NOT EXISTS (SELECT 1 FROM json_array_elements(:metadata::json) w WHERE NOT EXISTS (
        SELECT 1 FROM message_metadata d WHERE d.message = m.seq AND d.name = w ->> 0 AND d.value = w ->> 1)))
    AND (:status::text IS NULL OR EXISTS (SELECT 1 FROM recipients x
        WHERE x.rid >= m.seq * 1000 AND x.rid < m.seq * 1000 + 1000 AND x.state || '' = :status))
    AND (:recipient::text IS NULL OR EXISTS (SELECT 1 FROM recipients x
        WHERE x.rid >= m.seq * 1000 AND x.rid < m.seq * 1000 + 1000 AND x.address_key || '' = :recipient))
    AND (:relay::text IS NULL OR EXISTS (SELECT 1 FROM recipients x
        WHERE x.rid >= m.seq * 1000 AND x.rid < m.seq * 1000 + 1000 AND x.relay || '' = :relay))
    AND (:provider_message_id::text IS NULL OR EXISTS (SELECT 1 FROM recipients x
        WHERE x.rid >= m.seq * 1000 AND x.rid < m.seq * 1000 + 1000
            AND x.provider_message_id || '' = :provider_message_id))
    AND (:waiting::boolean IS NULL OR EXISTS (SELECT 1 FROM recipients x
        WHERE x.rid >= m.seq * 1000 AND x.rid < m.seq * 1000 + 1000 AND x.due_at + 0 IS NOT NULL))

-- list_messages: all --
-- All messages of an account, newest first. messages_by_account.
SELECT m.seq FROM messages m WHERE m.account = :account AND m.seq < :before AND m.seq >= :oldest
    AND {other conditions}
ORDER BY m.seq DESC LIMIT :most;

-- list_messages: status --
-- Messages with a recipient in a state. recipients_by_state, messages primary key.
SELECT m.seq FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
WHERE r.account = :account AND r.state = :status AND r.rid < :before * 1000 AND r.rid >= :oldest * 1000
    AND {other conditions}
ORDER BY r.rid DESC LIMIT :most;

-- list_messages: recipient --
-- Messages to an address. recipients_by_address, messages primary key.
SELECT m.seq FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
WHERE r.account = :account AND r.address_key = :recipient AND r.rid < :before * 1000 AND r.rid >= :oldest * 1000
    AND {other conditions}
ORDER BY r.rid DESC LIMIT :most;

-- list_messages: relay --
-- Messages last handled by a relay. recipients_by_relay, messages primary key.
SELECT m.seq FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
WHERE r.account = :account AND r.relay = :relay AND r.rid < :before * 1000 AND r.rid >= :oldest * 1000
    AND {other conditions}
ORDER BY r.rid DESC LIMIT :most;

-- list_messages: provider_message_id --
-- Messages that a relay knows by this id. recipients_by_provider_id, messages primary key.
SELECT m.seq FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
WHERE r.provider_message_id = :provider_message_id AND r.account || '' = :account AND r.rid + 0 < :before * 1000
    AND r.rid + 0 >= :oldest * 1000 AND {other conditions}
ORDER BY r.rid + 0 DESC LIMIT :most;

-- list_messages: message_id --
-- The message with a Message-ID. messages_by_message_id.
SELECT m.seq FROM messages m WHERE m.message_id = :message_id AND m.account || '' = :account AND m.seq + 0 < :before
    AND m.seq + 0 >= :oldest AND {other conditions}
ORDER BY m.seq + 0 DESC LIMIT :most;

-- list_messages: tag --
-- Messages with a tag of this name. message_tags primary key, messages primary key.
SELECT m.seq FROM message_tags g JOIN messages m ON m.seq = g.message
WHERE g.account = :account AND g.name = :tag AND g.message < :before AND g.message >= :oldest AND {other conditions}
ORDER BY g.message DESC LIMIT :most;

-- list_messages: metadata --
-- Messages with a metadata value. message_metadata primary key, messages primary key.
SELECT m.seq FROM message_metadata g JOIN messages m ON m.seq = g.message
WHERE g.account = :account AND g.name = :metadata_name AND g.value = :metadata_value AND g.message < :before
    AND g.message >= :oldest AND {other conditions}
ORDER BY g.message DESC LIMIT :most;

-- list_messages: from_email --
-- Messages from an address. messages_by_sender.
SELECT m.seq FROM messages m
WHERE m.account = :account AND m.from_email = :from_email AND m.seq < :before AND m.seq >= :oldest AND {other conditions}
ORDER BY m.from_email, m.seq DESC LIMIT :most;

-- list_messages: template --
-- Messages of one version of a template. messages_by_template.
SELECT m.seq FROM messages m WHERE m.account = :account AND m.template = :template AND m.seq < :before
    AND m.seq >= :oldest AND {other conditions}
ORDER BY m.template, m.seq DESC LIMIT :most;

-- list_messages: cursor --
-- The place of a message in the list. messages_by_id.
SELECT seq FROM messages WHERE id = :id AND account = :account;

-- list_messages: from --
-- The first message from a time on: ids sort by time. messages_by_id.
SELECT seq FROM messages WHERE id >= :id AND account || '' = :account ORDER BY id LIMIT 1;

-- list_events: by message --
-- The delivery log, oldest first. messages_by_id, events_by_message, recipients primary key.
SELECT e.seq, e.at, e.type, r.email, e.attempt, e.data
FROM messages m JOIN events e ON e.message = m.seq LEFT JOIN recipients r ON r.rid = m.seq * 1000 + e.n
WHERE m.id = :id AND m.account = :account ORDER BY e.seq;

-- get_content: by id --
-- The bytes of a message of an account, with its shared blobs. messages_by_id, contents primary key, content_blobs
-- primary key, blobs primary key.
SELECT c.message, c.inline, c.layout, ARRAY(SELECT u.sha256 FROM content_blobs u WHERE u.message = m.seq
    ORDER BY u.sha256), ARRAY(SELECT b.data FROM content_blobs u JOIN blobs b ON b.sha256 = u.sha256
    WHERE u.message = m.seq ORDER BY u.sha256)
FROM messages m JOIN contents c ON c.message = m.seq WHERE m.id = :id AND m.account = :account;

-- reschedule: message of --
-- Hold a message of an account: nobody else changes its recipients. messages_by_id.
SELECT seq FROM messages WHERE id = :id AND account = :account FOR UPDATE;

-- reschedule: unattempted --
-- Whether every open recipient still waits and was never tried. recipients primary key.
SELECT count(*) FILTER (WHERE state = 'queued' AND attempts = 0 AND due_at > :now),
    count(*) FILTER (WHERE state NOT IN ('suppressed', 'canceled'))
FROM recipients WHERE rid >= :first AND rid < :first + 1000;

-- reschedule: message --
-- The new time; ttl counts from it. messages primary key.
UPDATE messages SET expires_at = expires_at - greatest(created_at, coalesce(scheduled_at, 0)) + :at::bigint,
    scheduled_at = :at, size = :size
WHERE seq = :seq RETURNING expires_at;

-- reschedule: recipients --
-- Waiting recipients follow. recipients primary key.
UPDATE recipients SET due_at = :at, expires_at = :expires_at, updated_at = :now, held_by = NULL
WHERE rid >= :first AND rid < :first + 1000 AND state = 'queued';

-- cancel_where: messages --
-- Hold messages, in one order. messages primary key.
SELECT seq FROM messages WHERE seq = ANY(:seqs::bigint[]) ORDER BY seq FOR UPDATE;

-- cancel: waiting --
-- What can be canceled. recipients primary key.
SELECT r.rid, r.state FROM unnest(:seqs::bigint[]) AS s CROSS JOIN LATERAL (
    SELECT * FROM recipients x WHERE x.rid >= s * 1000 AND x.rid < s * 1000 + 1000 OFFSET 0) r
WHERE r.due_at IS NOT NULL ORDER BY r.rid;

-- retry: ended --
-- What can be queued again. recipients primary key.
SELECT rid, state FROM recipients WHERE rid >= :first AND rid < :first + 1000
    AND state IN ('bounced', 'failed', 'expired', 'unknown', 'canceled');

-- retry: bytes --
-- Whether the bytes are still there. contents primary key.
SELECT 1 FROM contents WHERE message = :seq;

-- retry: recipient --
-- Back into the queue, with a fresh schedule. recipients primary key.
UPDATE recipients r SET state = n.state, due_at = :due_at, expires_at = :expires_at, attempts = 0, in_doubt = 0,
    attempt = NULL, updated_at = :now, counted_kind = '', kind_count = 0, reconnected_at = NULL, held_by = NULL
FROM json_to_recordset(:rows::json) AS n (rid bigint, state text) WHERE r.rid = n.rid;

-- retry: message --
-- Open again. messages primary key.
UPDATE messages SET closed_at = NULL, expires_at = :expires_at, kills = 0 WHERE seq = :seq;

-- erase: message --
-- Forget the subject, and say since when the bytes are gone. messages primary key.
UPDATE messages SET subject = '', content_purged_at = coalesce(content_purged_at, :now::bigint) WHERE seq = :seq;

-- erase: blobs --
-- The blobs that messages need no more. content_blobs primary key.
DELETE FROM content_blobs WHERE message = ANY(:seqs::bigint[]) RETURNING sha256;

-- erase: lock blobs --
-- Hold blobs, in one order: who is about to need them is waited for. blobs primary key.
SELECT sha256 FROM blobs WHERE sha256 = ANY(:blobs::bytea[]) ORDER BY sha256 FOR UPDATE;

-- erase: blob --
-- Blobs that nobody needs any more. blobs primary key, content_blobs_by_blob.
DELETE FROM blobs b WHERE b.sha256 = ANY(:blobs::bytea[])
    AND NOT EXISTS (SELECT 1 FROM content_blobs u WHERE u.sha256 = b.sha256);

-- erase: content --
-- The bytes go. contents primary key.
DELETE FROM contents WHERE message = ANY(:seqs::bigint[]);

-- list_suppressions: page --
-- Suppressions by address. suppressions primary key.
SELECT email, reason, origin, created_at, message, detail, category FROM suppressions
WHERE account = :account AND address_key > :after AND (:reason::text IS NULL OR reason = :reason)
ORDER BY address_key, reason, category LIMIT :limit;

-- get_suppressions: by address --
-- Why an address is suppressed. suppressions primary key.
SELECT email, reason, origin, created_at, message, detail, category FROM suppressions
WHERE account = :account AND address_key = :key ORDER BY reason, category;

-- add_suppression: insert --
-- One reason for one address; the first one stays. suppressions primary key.
INSERT INTO suppressions (account, address_key, reason, email, origin, created_at, message, detail, category)
SELECT * FROM json_to_recordset(:rows::json) AS n (account text, address_key text, reason text, email text, origin text,
    created_at bigint, message text, detail text, category text)
ON CONFLICT (account, address_key, reason, category) DO NOTHING RETURNING reason;

-- remove_suppressions: delete --
-- The address is good again. suppressions primary key.
DELETE FROM suppressions WHERE account = :account AND address_key = :key AND (:reason::text IS NULL OR reason = :reason)
    AND (:category::text IS NULL OR category = :category)
RETURNING reason;

-- learn_offer: keep --
-- What a relay offers now. relay_offers primary key.
INSERT INTO relay_offers (endpoint, smtputf8, max_size, learned_at) VALUES (:endpoint, :smtputf8, :max_size, :now)
ON CONFLICT (endpoint) DO UPDATE
SET smtputf8 = excluded.smtputf8, max_size = excluded.max_size, learned_at = excluded.learned_at;

-- offers: all --
-- A row for each relay that was ever spoken to. Whole table.
SELECT endpoint, smtputf8, max_size FROM relay_offers;

-- relay_accounts: troubles --
-- Why accounts take no mail, and what is remembered of it: a few rows for each account. Whole table.
SELECT account, kind, mark, at, until, reason, probe, login, step, times, length, steps FROM relay_troubles;

-- relay_accounts: logins --
-- Who may log in to which account, and whether that process lives: a row for each. Whole table, holders primary key.
SELECT l.account, l.proven_at, l.mark, l.asked, l.prober, l.lease_until,
    EXISTS (SELECT 1 FROM holders h WHERE h.holder = regexp_replace(l.prober, '/[^/]*$', '') COLLATE "C")
FROM relay_logins l;

-- record_trouble: known --
-- The troubles of accounts. relay_troubles primary key.
SELECT account, kind, mark, at, until, reason, probe, login, step, times, length, steps FROM relay_troubles
WHERE account = ANY(:accounts::text[]);

-- record_trouble: keep --
-- What is known of troubles from now on. relay_troubles primary key.
INSERT INTO relay_troubles (account, kind, mark, at, until, reason, probe, login, step, times, length, steps)
SELECT * FROM json_to_recordset(:rows::json) AS n (account text, kind text, mark text, at bigint, until bigint, reason text,
    probe boolean, login boolean, step integer, times integer, length double precision, steps text)
ON CONFLICT (account, kind, mark) DO UPDATE SET at = excluded.at, until = excluded.until, reason = excluded.reason,
    probe = excluded.probe, login = excluded.login, step = excluded.step, times = excluded.times,
    length = excluded.length, steps = excluded.steps;

-- forgive_trouble: delete --
-- Nothing is left of troubles. relay_troubles primary key.
DELETE FROM relay_troubles t USING json_to_recordset(:rows::json) AS n (account text, kind text, mark text)
WHERE t.account = n.account COLLATE "C" AND t.kind = n.kind COLLATE "C" AND t.mark = n.mark COLLATE "C";

-- ask_login: lock --
-- One process at a time changes what is known of an account; accounts in one order for everybody.
SELECT pg_advisory_xact_lock(7310006, hashtext(a)) FROM unnest(:accounts::text[]) AS a;

-- ask_login: clock --
-- What time it is for all.
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- ask_login: right --
-- The right to log in to accounts, and whether who has it lives. relay_logins primary key, holders primary key.
SELECT l.account, l.proven_at, l.mark, l.asked, l.prober, l.lease_until,
    EXISTS (SELECT 1 FROM holders h WHERE h.holder = regexp_replace(l.prober, '/[^/]*$', '') COLLATE "C")
FROM relay_logins l WHERE l.account = ANY(:accounts::text[]);

-- ask_login: keep --
-- Who has the right from now on, and which secret was proven when. relay_logins primary key.
INSERT INTO relay_logins (account, proven_at, mark, asked, prober, lease_until)
SELECT * FROM json_to_recordset(:rows::json) AS n (account text, proven_at bigint, mark text, asked text, prober text,
    lease_until bigint)
ON CONFLICT (account) DO UPDATE SET proven_at = excluded.proven_at, mark = excluded.mark, asked = excluded.asked,
    prober = excluded.prober, lease_until = excluded.lease_until;

-- add_relay_event: insert --
-- Things that happened to relays, in the order given. Append.
INSERT INTO relay_events (account, relay, at, kind, detail)
SELECT * FROM json_to_recordset(:rows::json) AS n (account text, relay text, at bigint, kind text, detail text);

-- add_relay_event: trim --
-- The last 200 of an account are kept. relay_events_by_account, relay_events primary key.
DELETE FROM relay_events WHERE seq = ANY(ARRAY(
    SELECT e.seq FROM unnest(:accounts::text[]) AS a CROSS JOIN LATERAL (
        SELECT seq FROM relay_events WHERE account = a COLLATE "C" ORDER BY account, seq DESC OFFSET 200) e));

-- relay_events: newest --
-- What happened to an account's relays, newest first. relay_events_by_account.
SELECT account, relay, at, kind, detail FROM relay_events WHERE account = :account
ORDER BY account, seq DESC LIMIT :limit;

-- show_relays: keep --
-- What one process sees of its relays now. relay_views primary key.
INSERT INTO relay_views (holder, relay, seen_at, connections, in_flight, sent, last_reply, reply_at, last_error, error_at)
SELECT * FROM json_to_recordset(:rows::json) AS n (holder text, relay text, seen_at bigint, connections integer,
    in_flight integer, sent bigint, last_reply text, reply_at bigint, last_error text, error_at bigint)
ON CONFLICT (holder, relay) DO UPDATE SET seen_at = excluded.seen_at, connections = excluded.connections,
    in_flight = excluded.in_flight, sent = excluded.sent, last_reply = excluded.last_reply, reply_at = excluded.reply_at,
    last_error = excluded.last_error, error_at = excluded.error_at;

-- relay_views: since --
-- What processes saw of relays since a moment: a row for each process and relay. Whole table.
SELECT holder, relay, seen_at, connections, in_flight, sent, last_reply, reply_at, last_error, error_at
FROM relay_views WHERE seen_at > :since;

-- purge_relays: events --
-- Events of relays that are older than the log is kept. relay_events_by_time, relay_events primary key.
DELETE FROM relay_events WHERE seq = ANY(ARRAY(
    SELECT seq FROM relay_events WHERE at < :before ORDER BY at LIMIT :limit FOR UPDATE SKIP LOCKED)) RETURNING seq;

-- purge_relays: views --
-- What processes saw that tells nothing any more. Whole table, a row for each process and relay.
DELETE FROM relay_views WHERE seen_at < :before;

-- purge_relays: troubles --
-- Troubles that nobody has told of for long after their end. Whole table, a few rows for each account.
DELETE FROM relay_troubles WHERE until < :before;

-- publish_template: lock --
-- One process at a time gives numbers to the versions of a name.
SELECT pg_advisory_xact_lock(7310004, hashtext(:name));

-- publish_template: known --
-- The number that these files have already. template_versions_by_digest.
SELECT number FROM template_versions WHERE name = :name AND digest = :digest;

-- publish_template: version --
-- The next number. template_versions primary key.
INSERT INTO template_versions (name, number, digest, files, created_at)
VALUES (:name, coalesce((SELECT max(number) FROM template_versions WHERE name = :name), 0) + 1, :digest, :files, :now)
RETURNING number;

-- publish_template: current --
-- What the bare name means from here on. published_templates primary key.
INSERT INTO published_templates (name, number, published_at) VALUES (:name, :number, :now)
ON CONFLICT (name) DO UPDATE SET number = excluded.number, published_at = excluded.published_at;

-- retire_template: delete --
-- The bare name means nothing any more; its versions stay. published_templates primary key.
DELETE FROM published_templates WHERE name = :name RETURNING name;

-- published_templates: all --
-- Every published name. published_templates primary key, template_versions primary key.
SELECT p.name, p.number, v.digest, v.created_at FROM published_templates p
JOIN template_versions v ON v.name = p.name AND v.number = p.number ORDER BY p.name;

-- published_templates: one --
-- What one published name means. published_templates primary key, template_versions primary key.
SELECT p.name, p.number, v.digest, v.created_at FROM published_templates p
JOIN template_versions v ON v.name = p.name AND v.number = p.number WHERE p.name = :name;

-- template_versions: newest --
-- The versions of one template, newest first. template_versions primary key.
SELECT name, number, digest, created_at FROM template_versions WHERE name = :name ORDER BY number DESC LIMIT :limit;

-- template_files: by number --
-- What one version is made of. template_versions primary key.
SELECT files FROM template_versions WHERE name = :name AND number = :number;

-- find_key: by prefix --
-- The key a token may belong to. api_keys_by_prefix.
SELECT id, prefix, digest, account, name, scopes, from_allowed, rate, created_at, expires_at, revoked_at
FROM api_keys WHERE prefix = :prefix;

-- add_key: lock --
-- Of two processes that start on an empty store, one makes the first key.
SELECT pg_advisory_xact_lock(7310005);

-- add_key: any --
-- Whether there is any key. Whole table, one row of it.
SELECT 1 FROM api_keys LIMIT 1;

-- add_key: insert --
-- A new key. Append.
INSERT INTO api_keys (id, prefix, digest, account, name, scopes, from_allowed, rate, created_at, expires_at, revoked_at)
VALUES (:id, :prefix, :digest, :account, :name, :scopes, :from_allowed, :rate, :created_at, :expires_at, :revoked_at);

-- list_keys: all --
-- All keys, of one account or of all. api_keys primary key.
SELECT id, prefix, digest, account, name, scopes, from_allowed, rate, created_at, expires_at, revoked_at
FROM api_keys WHERE (:account::text IS NULL OR account = :account) ORDER BY seq;

-- revoke_key: mark --
-- End a key. api_keys_by_id.
UPDATE api_keys SET revoked_at = :now
WHERE id = :id AND (:account::text IS NULL OR account = :account) AND revoked_at IS NULL RETURNING id;

-- newest_moment: line --
-- When the newest line of the delivery log was written. events primary key.
SELECT at FROM events ORDER BY seq DESC LIMIT 1;

-- last_ping: at --
-- When a process has last pinged. heartbeat primary key.
SELECT at FROM heartbeat WHERE one = 1;

-- purge_content: closed --
-- Messages closed long enough whose bytes are still there, held. messages_purgeable.
SELECT seq FROM messages WHERE closed_at < :older_than AND content_purged_at IS NULL ORDER BY closed_at LIMIT :limit
FOR UPDATE SKIP LOCKED;

-- purge_content: mark --
-- The bytes are gone since now. messages primary key.
UPDATE messages SET content_purged_at = :now WHERE seq = ANY(:seqs::bigint[]);

-- purge_log: closed --
-- Messages closed long ago, held. messages_closed.
SELECT seq FROM messages WHERE closed_at < :older_than ORDER BY closed_at LIMIT :limit FOR UPDATE SKIP LOCKED;

-- purge_log: states --
-- What leaves the counters. recipients primary key.
WITH gone AS (
    DELETE FROM recipients WHERE rid = ANY(ARRAY(
        SELECT r.rid FROM unnest(:seqs::bigint[]) AS s CROSS JOIN LATERAL (
            SELECT x.rid FROM recipients x WHERE x.rid >= s * 1000 AND x.rid < s * 1000 + 1000 OFFSET 0) r))
    RETURNING state)
SELECT state, count(*) FROM gone GROUP BY state;

-- purge_log: attempts --
-- attempts_by_message.
DELETE FROM attempts WHERE message = ANY(:seqs::bigint[]);

-- purge_log: events --
-- events_by_message.
DELETE FROM events WHERE message = ANY(:seqs::bigint[]);

-- purge_log: tags --
-- message_tags_by_message.
DELETE FROM message_tags WHERE message = ANY(:seqs::bigint[]);

-- purge_log: metadata --
-- message_metadata_by_message.
DELETE FROM message_metadata WHERE message = ANY(:seqs::bigint[]);

-- purge_log: message --
-- messages primary key.
DELETE FROM messages WHERE seq = ANY(:seqs::bigint[]);

-- fragment: still needed --
-- Whether a key's message (or one of its messages) is open, or closed too short a time ago. Not by EXISTS, for which the
-- planner may hash all messages.
((SELECT m.seq FROM messages m WHERE m.request = q.seq AND (m.closed_at IS NULL OR m.closed_at > :closed_before)
            LIMIT 1) IS NOT NULL
        OR (SELECT m.seq FROM messages m
            WHERE m.seq = q.message AND (m.closed_at IS NULL OR m.closed_at > :closed_before)) IS NOT NULL)

-- purge_keys: postpone --
-- Keys past their time that are still needed are looked at again later, so that they don't stand in the way of the
-- others. requests_expiring, requests primary key, messages_by_request, messages primary key.
UPDATE requests SET expires_at = :look_again WHERE seq = ANY(ARRAY(
    SELECT q.seq FROM (SELECT seq, message FROM requests WHERE expires_at <= :now ORDER BY expires_at LIMIT :limit
        FOR UPDATE SKIP LOCKED) q
    WHERE {still needed})) RETURNING seq;

-- purge_keys: requests --
-- Keys past their time that nobody needs. requests_expiring, requests primary key, messages_by_request, messages primary
-- key.
DELETE FROM requests WHERE seq = ANY(ARRAY(
    SELECT q.seq FROM (SELECT seq, message FROM requests WHERE expires_at <= :now ORDER BY expires_at LIMIT :limit
        FOR UPDATE SKIP LOCKED) q
    WHERE NOT {still needed})) RETURNING seq;

-- purge_keys: limits --
-- Limiters that are full again. limits_idle, limits primary key.
DELETE FROM limits WHERE bucket = ANY(ARRAY(
    SELECT bucket FROM limits WHERE idle_after <= :now ORDER BY idle_after LIMIT :limit FOR UPDATE SKIP LOCKED))
RETURNING bucket;

-- purge_keys: holders --
-- Processes that were not heard of for days and hold nothing. attempts_open, holders primary key.
DELETE FROM holders h WHERE h.seen_at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - :silence::bigint
    AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.holder = h.holder AND a.closed_at IS NULL);

-- stats: counters --
-- Recipients by state, kept by every transaction: a row for each state and writer. Whole table.
SELECT state, sum(count)::bigint FROM counters GROUP BY state;

-- copied_at: mark --
-- Whether this store is a copy (store/marks). schema_steps primary key.
SELECT checksum FROM schema_steps WHERE number = :number;

-- release_copy: mark --
-- It is a store like others from now on. schema_steps primary key.
DELETE FROM schema_steps WHERE number = :number RETURNING number;

-- store_time: clock --
-- What time it is on the server, ms.
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- waiting: lanes --
-- What waits by route, priority and state, for operators: every waiting recipient, with its message by row number.
-- recipients_expiring, messages primary key.
SELECT r.route, r.priority, r.state, count(*), count(*) FILTER (WHERE r.due_at <= :now),
    count(*) FILTER (WHERE r.in_doubt > 0), count(*) FILTER (WHERE r.due_at <= :now AND m.created_at <= :copied_at), min(m.created_at)
FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
WHERE r.due_at IS NOT NULL GROUP BY r.route, r.priority, r.state ORDER BY r.route, r.priority, r.state;

-- waiting: first --
-- The waiting recipients that are due first, urgent ones before. recipients_expiring, messages primary key.
SELECT m.id, m.account, r.email, r.route, r.priority, r.state, r.due_at, r.in_doubt, m.created_at, m.subject
FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
WHERE r.due_at IS NOT NULL ORDER BY r.priority, r.due_at, r.rid LIMIT :limit;

-- waiting: attempts --
-- Attempts that were opened and not closed. attempts_open.
SELECT count(*) FROM attempts WHERE closed_at IS NULL;
