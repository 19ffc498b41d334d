-- Every statement the store runs. `-- method: part --`, one sentence, the index that serves it.
-- The method is a method of service.store.port.Store; the same names stand in every dialect.

-- ping: write --
-- A durable write that changes nothing anybody reads. Primary key.
INSERT INTO heartbeat (one, at) VALUES (1, :at) ON CONFLICT (one) DO UPDATE SET at = excluded.at;

-- accept: find request --
-- What a key was answered with. requests (account, key).
SELECT seq, fingerprint, answer FROM requests WHERE account = :account AND key = :key;

-- accept: request --
-- Keep the answer under the key, in the message's own transaction. requests (account, key).
INSERT INTO requests (account, key, fingerprint, answer, expires_at)
VALUES (:account, :key, :fingerprint, :answer, :expires_at);

-- accept: item of --
-- The message that an item's own key belongs to. Primary key.
UPDATE requests SET message = ? WHERE seq = ?;

-- accept: find limit --
-- The state of a limiter or of a relay's quota. Primary key.
SELECT bucket, state FROM limits WHERE bucket = :bucket;

-- accept: limit --
-- Write the state of a limiter or quota back. Primary key.
INSERT INTO limits (bucket, state, idle_after) VALUES (:bucket, :state, :idle_after)
ON CONFLICT (bucket) DO UPDATE SET state = excluded.state, idle_after = excluded.idle_after;

-- accept: message --
-- The message's small row. Append.
INSERT INTO messages (id, account, message_id, created_at, scheduled_at, expires_at, closed_at, priority, delivery,
    route, relay, from_email, envelope_from, subject, template, tags, metadata, smtputf8, size, warnings, request,
    category, dsn)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- accept: recipient --
-- One forward-path. Append.
INSERT INTO recipients (rid, account, email, address_key, name, kind, state, route, priority, due_at, expires_at,
    updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- accept: content --
-- The bytes; `layout` says where shared blobs stand in them. Append.
INSERT INTO contents (message, inline, layout) VALUES (?, ?, ?);

-- accept: blob --
-- A large piece, kept once. Primary key.
INSERT INTO blobs (sha256, data) VALUES (?, ?) ON CONFLICT (sha256) DO NOTHING;

-- accept: content blob --
-- Which message needs which blob. Primary key.
INSERT INTO content_blobs (message, sha256) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- accept: tag --
-- For the filter by tag. Primary key.
INSERT INTO message_tags (account, name, value, message) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- accept: metadata --
-- For the filter by metadata. Primary key.
INSERT INTO message_metadata (account, name, value, message) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- accept: event --
-- One line of the delivery log. Append.
INSERT INTO events (message, n, at, type, attempt, data) VALUES (?, ?, ?, ?, ?, ?);

-- accept: count --
-- Add to the counter of a state. Primary key.
INSERT INTO counters (state, count) VALUES (?, ?) ON CONFLICT (state) DO UPDATE SET count = count + excluded.count;

-- suppressed: by address --
-- Why an address gets no mail, or none of one category. Primary key.
SELECT address_key, reason, category FROM suppressions
WHERE account = ? AND address_key = ? AND category IN ('', ?) LIMIT 1;

-- claim: waiting --
-- The first due recipients of one lane. recipients_waiting (route, priority, due_at).
SELECT rid FROM recipients WHERE route = ? AND priority = ? AND due_at <= ? ORDER BY due_at, rid LIMIT ?;

-- claim: recipients --
-- The due recipients of one message, as many as are wanted, from one of them on, and why one gets no mail of its category.
-- Primary keys: the `+` keeps it off the queue's index, where it would read the route's whole backlog for each message.
SELECT rid, email, address_key, attempts, in_doubt, expires_at, state,
    (SELECT reason FROM suppressions s
        WHERE s.account = r.account AND s.address_key = r.address_key AND s.category IN ('', :category) LIMIT 1),
    counted_kind, kind_count, reconnected_at
FROM recipients r
WHERE rid >= :first AND rid < :past AND +due_at <= :now AND +route = :route ORDER BY rid LIMIT :most;

-- claim: attempt --
-- Open an attempt; its id is the fence token. Append.
INSERT INTO attempts (message, relay, sealed_as, holder, opened_at, lease_until, ahead, taken)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id;

-- claim: of holder --
-- Whether an attempt is open and this holder's. Primary key.
SELECT id FROM attempts WHERE id = ? AND holder = ? AND closed_at IS NULL;

-- claim: lease --
-- A recipient is being sent under this fence. Primary key.
UPDATE recipients SET state = ?, attempt = ?, relay = ?, due_at = NULL, updated_at = ?, held_by = NULL WHERE rid = ?;

-- claim: put off --
-- A quota of its own holds a recipient: out of the way of those behind it, until then. Primary key.
UPDATE recipients SET due_at = ?, held_by = ? WHERE rid = ?;

-- claim: message --
-- What a sender needs to know. Primary key.
SELECT seq, category, id, account, message_id, delivery, created_at, MAX(created_at, COALESCE(scheduled_at, 0)),
    expires_at, from_email, envelope_from, smtputf8, size, dsn
FROM messages WHERE seq = ?;

-- claim: sealed as --
-- The sender rule of the last attempt in doubt whose rule is known. attempts_by_message.
SELECT sealed_as FROM attempts WHERE message = ? AND result = 'in_doubt' AND sealed_as IS NOT NULL
ORDER BY id DESC LIMIT 1;

-- claim: end --
-- A waiting recipient ends without being sent (expired, suppressed). Primary key.
UPDATE recipients SET state = ?, due_at = NULL, updated_at = ?, last_kind = ? WHERE rid = ?;

-- delivery_content: by id --
-- The bytes of a message. messages (id), contents primary key.
SELECT c.message, c.inline, c.layout FROM messages m JOIN contents c ON c.message = m.seq WHERE m.id = ?;

-- delivery_content: by seq --
-- The bytes of a message. Primary key.
SELECT message, inline, layout FROM contents WHERE message = ?;

-- delivery_content: blob --
-- The row of a shared piece. Primary key.
SELECT rowid FROM blobs WHERE sha256 = ?;

-- start_content: mark --
-- The content of a delivery is about to start (at_most_once, or claimed ahead); only while the lease holds. Primary key.
UPDATE attempts SET content_started_at = ? WHERE id = ? AND closed_at IS NULL RETURNING id;

-- settle: attempt --
-- Close an attempt, once; who claimed it has written the sender rule that it expects. Primary key.
UPDATE attempts SET closed_at = ?, result = ?, session = ?, timings = ?, sealed_as = COALESCE(?, sealed_as), signed_by = ?,
  detail = ?
WHERE id = ? AND closed_at IS NULL RETURNING id, message, relay, taken;

-- settle: recipient --
-- Apply an event to a recipient that we still hold: state and fence. Charged attempts that end alike are counted (the
-- class of a charged one is bound twice, NULL when nothing was charged). Primary key.
UPDATE recipients SET state = ?, due_at = ?, attempts = attempts + ?, in_doubt = in_doubt + ?,
    provider_message_id = coalesce(?, provider_message_id), last_code = ?, last_enhanced = ?, last_text = ?,
    last_kind = ?, updated_at = ?, counted_kind = coalesce(?, counted_kind),
    kind_count = CASE coalesce(?, '') WHEN '' THEN kind_count WHEN counted_kind THEN kind_count + 1 ELSE 1 END,
    reconnected_at = coalesce(?, reconnected_at)
WHERE rid = ? AND state = 'sending' AND attempt = ? RETURNING rid, attempt, email, address_key;

-- settle: route --
-- What an attempt held goes by another route from here on, since its relay can't carry the message; so do those of the
-- message that would have been with it if more could go at once. Primary key.
UPDATE recipients SET route = :route WHERE rid >= :first AND rid < :first + 1000 AND (attempt = :attempt
    OR (due_at <= :due_by AND route = (SELECT m.route FROM messages m WHERE m.seq = :seq)));

-- settle: message route --
-- The route that is shown of a message. Primary key.
UPDATE messages SET route = :route WHERE seq = :seq;

-- settle: close --
-- Close a message none of whose recipients is open any more. Primary key, recipients_by_state: by rid alone, the many that
-- were sent before would be walked with each that follows.
UPDATE messages SET closed_at = :now WHERE seq = :seq AND closed_at IS NULL AND NOT EXISTS (
    SELECT 1 FROM recipients r INDEXED BY recipients_by_state WHERE r.account = messages.account
        AND r.state IN ('queued', 'sending', 'deferred') AND r.rid >= :seq * 1000 AND r.rid < :seq * 1000 + 1000);

-- heartbeat: renew --
-- Renew the leases of one holder. attempts_open.
UPDATE attempts SET lease_until = ? WHERE holder = ? AND closed_at IS NULL;

-- rescue: holders --
-- Who holds open attempts. attempts_open.
SELECT DISTINCT holder FROM attempts WHERE closed_at IS NULL;

-- rescue: orphans --
-- Open attempts of a holder whose lease is over, or all of a dead one's. attempts_open.
SELECT a.id, a.message, a.content_started_at, a.ahead, m.id, m.account, m.delivery, m.kills, m.expires_at
FROM attempts a JOIN messages m ON m.seq = a.message
WHERE a.closed_at IS NULL AND a.holder = ? AND a.lease_until < ? LIMIT 500;

-- rescue: recipients --
-- What an orphaned attempt held. Primary key.
SELECT rid, in_doubt, attempts FROM recipients
WHERE rid >= :first AND rid < :first + 1000 AND state = 'sending' AND attempt = :attempt;

-- rescue: kill --
-- A message whose sender died once more. Primary key.
UPDATE messages SET kills = kills + 1 WHERE seq = ?;

-- due_routes: lanes --
-- Each lane that waits (a route and a priority) with its first due time. recipients_waiting: one seek for each lane, to
-- the next priority of the same route or else to the next route; a comparison of (route, priority) as a pair would walk.
WITH RECURSIVE lanes (rid) AS (
    SELECT (SELECT rid FROM recipients WHERE due_at IS NOT NULL AND route >= '' ORDER BY route, priority, due_at LIMIT 1)
    UNION ALL
    SELECT coalesce(
        (SELECT n.rid FROM recipients n WHERE n.due_at IS NOT NULL AND n.route = r.route AND n.priority > r.priority
            ORDER BY n.priority, n.due_at LIMIT 1),
        (SELECT n.rid FROM recipients n WHERE n.due_at IS NOT NULL AND n.route > r.route
            ORDER BY n.route, n.priority, n.due_at LIMIT 1))
    FROM lanes JOIN recipients r ON r.rid = lanes.rid)
SELECT r.route, r.priority, r.due_at FROM lanes JOIN recipients r ON r.rid = lanes.rid;

-- expire: due --
-- Waiting recipients whose ttl is over. recipients_expiring.
SELECT rid, state FROM recipients WHERE due_at IS NOT NULL AND expires_at <= ? ORDER BY expires_at LIMIT ?;

-- get_message: by id --
-- One message of an account. messages (id).
SELECT seq, id, account, message_id, created_at, scheduled_at, expires_at, closed_at, priority, delivery, route, relay,
    from_email, envelope_from, subject, template, tags, metadata, size, content_purged_at, warnings
FROM messages WHERE id = ? AND account = ?;

-- get_message: by seq --
-- One message. Primary key.
SELECT seq, id, account, message_id, created_at, scheduled_at, expires_at, closed_at, priority, delivery, route, relay,
    from_email, envelope_from, subject, template, tags, metadata, size, content_purged_at, warnings
FROM messages WHERE seq = ?;

-- get_message: recipients --
-- Its recipients in order. Primary key.
SELECT rid, email, name, kind, state, updated_at, due_at, attempts, in_doubt, relay, provider_message_id, last_code,
    last_enhanced, last_text, last_kind, held_by
FROM recipients WHERE rid >= :first AND rid < :first + 1000 ORDER BY rid;

-- fragment: other conditions --
-- What every list below adds: each condition that was given holds for the message. Checked row by row, by primary keys,
-- message_tags_by_message and message_metadata_by_message.
(:from_email IS NULL OR m.from_email = :from_email)
    AND (:template IS NULL OR m.template = :template OR substr(m.template, 1, length(:template) + 1) = :template || '@')
    AND (:message_id IS NULL OR m.message_id = :message_id)
    AND (:since IS NULL OR m.created_at >= :since) AND (:until IS NULL OR m.created_at < :until)
    AND (:scheduled_after IS NULL OR m.scheduled_at > :scheduled_after)
    AND (:tag IS NULL OR EXISTS (SELECT 1 FROM message_tags t WHERE t.account = m.account AND t.name = :tag
        AND t.message = m.seq AND (:tag_value IS NULL OR t.value = :tag_value)))
    AND (:metadata IS NULL OR NOT EXISTS (SELECT 1 FROM json_each(:metadata) w WHERE NOT EXISTS (
        SELECT 1 FROM message_metadata d WHERE d.account = m.account AND d.message = m.seq
            AND d.name = json_extract(w.value, '$[0]') AND d.value = json_extract(w.value, '$[1]'))))
    AND (:status IS NULL OR EXISTS (SELECT 1 FROM recipients x
        WHERE x.rid >= m.seq * 1000 AND x.rid < m.seq * 1000 + 1000 AND +x.state = :status))
    AND (:recipient IS NULL OR EXISTS (SELECT 1 FROM recipients x
        WHERE x.rid >= m.seq * 1000 AND x.rid < m.seq * 1000 + 1000 AND +x.address_key = :recipient))
    AND (:relay IS NULL OR EXISTS (SELECT 1 FROM recipients x
        WHERE x.rid >= m.seq * 1000 AND x.rid < m.seq * 1000 + 1000 AND +x.relay = :relay))
    AND (:provider_message_id IS NULL OR EXISTS (SELECT 1 FROM recipients x
        WHERE x.rid >= m.seq * 1000 AND x.rid < m.seq * 1000 + 1000 AND +x.provider_message_id = :provider_message_id))
    AND (:waiting IS NULL OR EXISTS (SELECT 1 FROM recipients x
        WHERE x.rid >= m.seq * 1000 AND x.rid < m.seq * 1000 + 1000 AND +x.due_at IS NOT NULL))

-- list_messages: all --
-- All messages of an account, newest first. messages_by_account.
SELECT m.seq FROM messages m WHERE m.account = :account AND m.seq < :before AND m.seq >= :oldest
    AND {other conditions}
ORDER BY m.seq DESC;

-- list_messages: status --
-- Messages with a recipient in a state. recipients_by_state.
SELECT m.seq FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
WHERE r.account = :account AND r.state = :status AND r.rid < :before * 1000 AND r.rid >= :oldest * 1000
    AND {other conditions}
ORDER BY r.rid DESC;

-- list_messages: recipient --
-- Messages to an address. recipients_by_address.
SELECT m.seq FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
WHERE r.account = :account AND r.address_key = :recipient AND r.rid < :before * 1000 AND r.rid >= :oldest * 1000
    AND {other conditions}
ORDER BY r.rid DESC;

-- list_messages: relay --
-- Messages last handled by a relay. recipients_by_relay.
SELECT m.seq FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
WHERE r.account = :account AND r.relay = :relay AND r.rid < :before * 1000 AND r.rid >= :oldest * 1000
    AND {other conditions}
ORDER BY r.rid DESC;

-- list_messages: provider_message_id --
-- Messages that a relay knows by this id. recipients_by_provider_id.
SELECT m.seq FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
WHERE r.provider_message_id = :provider_message_id AND r.account = :account AND r.rid < :before * 1000
    AND r.rid >= :oldest * 1000 AND {other conditions}
ORDER BY r.rid DESC;

-- list_messages: message_id --
-- The message with a Message-ID. messages_by_message_id.
SELECT m.seq FROM messages m WHERE m.message_id = :message_id AND m.account = :account AND m.seq < :before
    AND m.seq >= :oldest AND {other conditions}
ORDER BY m.seq DESC;

-- list_messages: tag --
-- Messages with a tag of this name. message_tags primary key.
SELECT m.seq FROM message_tags g JOIN messages m ON m.seq = g.message
WHERE g.account = :account AND g.name = :tag AND g.message < :before AND g.message >= :oldest AND {other conditions}
ORDER BY g.message DESC;

-- list_messages: metadata --
-- Messages with a metadata value. message_metadata primary key.
SELECT m.seq FROM message_metadata g JOIN messages m ON m.seq = g.message
WHERE g.account = :account AND g.name = :metadata_name AND g.value = :metadata_value AND g.message < :before
    AND g.message >= :oldest AND {other conditions}
ORDER BY g.message DESC;

-- list_messages: from_email --
-- Messages from an address. messages_by_sender.
SELECT m.seq FROM messages m INDEXED BY messages_by_sender
WHERE m.account = :account AND m.from_email = :from_email AND m.seq < :before AND m.seq >= :oldest AND {other conditions}
ORDER BY m.seq DESC;

-- list_messages: template --
-- Messages of one version of a template. messages_by_template.
SELECT m.seq FROM messages m WHERE m.account = :account AND m.template = :template AND m.seq < :before
    AND m.seq >= :oldest AND {other conditions}
ORDER BY m.seq DESC;

-- list_messages: cursor --
-- The place of a message in the list. messages (id).
SELECT seq FROM messages WHERE id = ? AND account = ?;

-- list_messages: from --
-- The first message from a time on. messages (id): ids sort by time; the `+` keeps it off the account's index.
SELECT seq FROM messages WHERE id >= ? AND +account = ? ORDER BY id LIMIT 1;

-- list_events: by message --
-- The delivery log, oldest first. events_by_message, messages (id).
SELECT e.seq, e.at, e.type, r.email, e.attempt, e.data
FROM messages m JOIN events e ON e.message = m.seq LEFT JOIN recipients r ON r.rid = m.seq * 1000 + e.n
WHERE m.id = ? AND m.account = ? ORDER BY e.seq;

-- get_content: by id --
-- The bytes of a message of an account. messages (id).
SELECT c.message, c.inline, c.layout FROM messages m JOIN contents c ON c.message = m.seq
WHERE m.id = ? AND m.account = ?;

-- reschedule: unattempted --
-- Whether every open recipient still waits and was never tried. Primary key.
SELECT count(*) FILTER (WHERE state = 'queued' AND attempts = 0 AND due_at > :now),
    count(*) FILTER (WHERE state NOT IN ('suppressed', 'canceled'))
FROM recipients WHERE rid >= :first AND rid < :first + 1000;

-- reschedule: message --
-- The new time; ttl counts from it. Primary key.
UPDATE messages SET expires_at = expires_at - max(created_at, coalesce(scheduled_at, 0)) + :at, scheduled_at = :at,
    size = :size
WHERE seq = :seq RETURNING expires_at;

-- reschedule: recipients --
-- Waiting recipients follow. Primary key.
UPDATE recipients SET due_at = :at, expires_at = :expires_at, updated_at = :now, held_by = NULL
WHERE rid >= :first AND rid < :first + 1000 AND state = 'queued';

-- cancel: waiting --
-- What can be canceled. Primary key.
SELECT rid, state FROM recipients WHERE rid >= :first AND rid < :first + 1000 AND due_at IS NOT NULL;

-- retry: ended --
-- What can be queued again. Primary key.
SELECT rid, state FROM recipients WHERE rid >= :first AND rid < :first + 1000
    AND state IN ('bounced', 'failed', 'expired', 'unknown', 'canceled');

-- retry: recipient --
-- Back into the queue, with a fresh schedule. Primary key.
UPDATE recipients SET state = ?, due_at = ?, expires_at = ?, attempts = 0, in_doubt = 0, attempt = NULL, updated_at = ?,
    counted_kind = '', kind_count = 0, reconnected_at = NULL, held_by = NULL
WHERE rid = ?;

-- retry: message --
-- Open again. Primary key.
UPDATE messages SET closed_at = NULL, expires_at = ?, kills = 0 WHERE seq = ?;

-- erase: message --
-- Forget the subject, and say since when the bytes are gone. Primary key.
UPDATE messages SET subject = '', content_purged_at = coalesce(content_purged_at, ?) WHERE seq = ?;

-- erase: blobs --
-- The blobs a message needs. content_blobs primary key.
SELECT sha256 FROM content_blobs WHERE message = ?;

-- erase: content blobs --
-- It needs them no more. content_blobs primary key.
DELETE FROM content_blobs WHERE message = ?;

-- erase: blob --
-- Nobody needs this blob any more. Primary key, content_blobs_by_blob.
DELETE FROM blobs WHERE sha256 = :sha256 AND NOT EXISTS (SELECT 1 FROM content_blobs WHERE sha256 = :sha256);

-- erase: content --
-- The bytes go. Primary key.
DELETE FROM contents WHERE message = ?;

-- list_suppressions: page --
-- Suppressions by address. Primary key.
SELECT email, reason, origin, created_at, message, detail, category FROM suppressions
WHERE account = :account AND address_key > :after AND (:reason IS NULL OR reason = :reason)
ORDER BY address_key, reason, category LIMIT :limit;

-- get_suppressions: by address --
-- Why an address is suppressed. Primary key.
SELECT email, reason, origin, created_at, message, detail, category FROM suppressions
WHERE account = ? AND address_key = ?;

-- add_suppression: insert --
-- One reason for one address; the first one stays. Primary key.
INSERT INTO suppressions (account, address_key, reason, email, origin, created_at, message, detail, category)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING reason;

-- remove_suppressions: delete --
-- The address is good again. Primary key.
DELETE FROM suppressions WHERE account = :account AND address_key = :key AND (:reason IS NULL OR reason = :reason)
    AND (:category IS NULL OR category = :category)
RETURNING reason;

-- learn_offer: keep --
-- What a relay offers now. Primary key.
INSERT INTO relay_offers (endpoint, smtputf8, max_size, learned_at) VALUES (?, ?, ?, ?)
ON CONFLICT (endpoint) DO UPDATE
SET smtputf8 = excluded.smtputf8, max_size = excluded.max_size, learned_at = excluded.learned_at;

-- offers: all --
-- A row for each relay that was ever spoken to. Whole table.
SELECT endpoint, smtputf8, max_size FROM relay_offers;

-- relay_accounts: troubles --
-- Why accounts take no mail, and what is remembered of it: a few rows for each account. Whole table.
SELECT account, kind, mark, at, until, reason, probe, login, step, times, length, steps FROM relay_troubles;

-- relay_accounts: logins --
-- Who may log in to which account: a row for each. Whole table.
SELECT account, proven_at, mark, asked, prober, lease_until FROM relay_logins;

-- record_trouble: known --
-- The troubles of one account. Primary key.
SELECT account, kind, mark, at, until, reason, probe, login, step, times, length, steps FROM relay_troubles
WHERE account = ?;

-- record_trouble: keep --
-- What is known of one trouble from now on. Primary key.
INSERT INTO relay_troubles (account, kind, mark, at, until, reason, probe, login, step, times, length, steps)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (account, kind, mark) DO UPDATE SET at = excluded.at, until = excluded.until, reason = excluded.reason,
    probe = excluded.probe, login = excluded.login, step = excluded.step, times = excluded.times,
    length = excluded.length, steps = excluded.steps;

-- forgive_trouble: delete --
-- Nothing is left of a trouble. Primary key.
DELETE FROM relay_troubles WHERE account = ? AND kind = ? AND mark = ?;

-- ask_login: right --
-- The right to log in to one account. Primary key.
SELECT account, proven_at, mark, asked, prober, lease_until FROM relay_logins WHERE account = ?;

-- ask_login: keep --
-- Who has the right from now on, and which secret was proven when. Primary key.
INSERT INTO relay_logins (account, proven_at, mark, asked, prober, lease_until) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (account) DO UPDATE SET proven_at = excluded.proven_at, mark = excluded.mark, asked = excluded.asked,
    prober = excluded.prober, lease_until = excluded.lease_until;

-- add_relay_event: insert --
-- Something happened to a relay. Append.
INSERT INTO relay_events (account, relay, at, kind, detail) VALUES (?, ?, ?, ?, ?);

-- add_relay_event: trim --
-- The last 200 of an account are kept. relay_events_by_account.
DELETE FROM relay_events WHERE account = :account AND seq <= (
    SELECT seq FROM relay_events WHERE account = :account ORDER BY seq DESC LIMIT 1 OFFSET 200);

-- relay_events: newest --
-- What happened to an account's relays, newest first. relay_events_by_account.
SELECT account, relay, at, kind, detail FROM relay_events WHERE account = ? ORDER BY seq DESC LIMIT ?;

-- show_relays: keep --
-- What one process sees of a relay now. Primary key.
INSERT INTO relay_views (holder, relay, seen_at, connections, in_flight, sent, last_reply, reply_at, last_error, error_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (holder, relay) DO UPDATE SET seen_at = excluded.seen_at, connections = excluded.connections,
    in_flight = excluded.in_flight, sent = excluded.sent, last_reply = excluded.last_reply, reply_at = excluded.reply_at,
    last_error = excluded.last_error, error_at = excluded.error_at;

-- relay_views: since --
-- What processes saw of relays since a moment: a row for each process and relay. Whole table.
SELECT holder, relay, seen_at, connections, in_flight, sent, last_reply, reply_at, last_error, error_at
FROM relay_views WHERE seen_at > ?;

-- publish_template: known --
-- The number that these files have already. template_versions_by_digest.
SELECT number FROM template_versions WHERE name = ? AND digest = ?;

-- publish_template: version --
-- The next number. Primary key.
INSERT INTO template_versions (name, number, digest, files, created_at)
SELECT :name, coalesce(max(number), 0) + 1, :digest, :files, :now FROM template_versions WHERE name = :name
RETURNING number;

-- publish_template: current --
-- What the bare name means from here on. Primary key.
INSERT INTO published_templates (name, number, published_at) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET number = excluded.number, published_at = excluded.published_at;

-- retire_template: delete --
-- The bare name means nothing any more; its versions stay. Primary key.
DELETE FROM published_templates WHERE name = ? RETURNING name;

-- published_templates: all --
-- Every published name. Primary key.
SELECT p.name, p.number, v.digest, v.created_at FROM published_templates p
JOIN template_versions v ON v.name = p.name AND v.number = p.number ORDER BY p.name;

-- published_templates: one --
-- What one published name means. Primary key.
SELECT p.name, p.number, v.digest, v.created_at FROM published_templates p
JOIN template_versions v ON v.name = p.name AND v.number = p.number WHERE p.name = ?;

-- template_versions: newest --
-- The versions of one template, newest first. Primary key.
SELECT name, number, digest, created_at FROM template_versions WHERE name = ? ORDER BY number DESC LIMIT ?;

-- template_files: by number --
-- What one version is made of. Primary key.
SELECT files FROM template_versions WHERE name = ? AND number = ?;

-- find_key: by prefix --
-- The key a token may belong to. api_keys (prefix).
SELECT id, prefix, digest, account, name, scopes, from_allowed, rate, created_at, expires_at, revoked_at
FROM api_keys WHERE prefix = ?;

-- add_key: any --
-- Whether there is any key. Primary key.
SELECT 1 FROM api_keys LIMIT 1;

-- add_key: insert --
-- A new key. Append.
INSERT INTO api_keys (id, prefix, digest, account, name, scopes, from_allowed, rate, created_at, expires_at, revoked_at)
VALUES (:id, :prefix, :digest, :account, :name, :scopes, :from_allowed, :rate, :created_at, :expires_at, :revoked_at);

-- list_keys: all --
-- All keys, of one account or of all. Primary key.
SELECT id, prefix, digest, account, name, scopes, from_allowed, rate, created_at, expires_at, revoked_at
FROM api_keys WHERE (:account IS NULL OR account = :account) ORDER BY seq;

-- revoke_key: mark --
-- End a key. api_keys (id).
UPDATE api_keys SET revoked_at = :now
WHERE id = :id AND (:account IS NULL OR account = :account) AND revoked_at IS NULL RETURNING id;

-- newest_moment: line --
-- When the newest line of the delivery log was written. Primary key.
SELECT at FROM events ORDER BY seq DESC LIMIT 1;

-- last_ping: at --
-- When a process has last pinged. Primary key.
SELECT at FROM heartbeat WHERE one = 1;

-- purge_content: closed --
-- Messages closed long enough whose bytes are still there. messages_purgeable.
SELECT m.seq FROM messages m WHERE m.closed_at < ? AND m.content_purged_at IS NULL LIMIT ?;

-- purge_content: mark --
-- The bytes are gone since now. Primary key.
UPDATE messages SET content_purged_at = ? WHERE seq = ?;

-- purge_log: closed --
-- Messages closed long ago. messages_closed.
SELECT seq FROM messages WHERE closed_at < ? ORDER BY closed_at LIMIT ?;

-- purge_log: states --
-- What is about to leave the counters. Primary key.
SELECT state, count(*) FROM recipients WHERE rid >= :first AND rid < :first + 1000 GROUP BY state;

-- purge_log: recipients --
-- Primary key.
DELETE FROM recipients WHERE rid >= :first AND rid < :first + 1000;

-- purge_log: attempts --
-- attempts_by_message.
DELETE FROM attempts WHERE message = ?;

-- purge_log: events --
-- events_by_message.
DELETE FROM events WHERE message = ?;

-- purge_log: tags --
-- message_tags_by_message.
DELETE FROM message_tags WHERE message = ?;

-- purge_log: metadata --
-- message_metadata_by_message.
DELETE FROM message_metadata WHERE message = ?;

-- purge_log: message --
-- Primary key.
DELETE FROM messages WHERE seq = ?;

-- fragment: still needed --
-- Whether a key's message (or one of its messages) is open, or closed too short a time ago.
(EXISTS (SELECT 1 FROM messages m WHERE m.request = q.seq AND (m.closed_at IS NULL OR m.closed_at > :closed_before))
        OR EXISTS (SELECT 1 FROM messages m
            WHERE m.seq = q.message AND (m.closed_at IS NULL OR m.closed_at > :closed_before)))

-- purge_keys: postpone --
-- Keys past their time that are still needed are looked at again later, so that they don't stand in the way of the
-- others. requests_expiring, messages_by_request.
UPDATE requests SET expires_at = :look_again WHERE seq IN (
    SELECT seq FROM (SELECT seq, message FROM requests WHERE expires_at <= :now ORDER BY expires_at LIMIT :limit) q
    WHERE {still needed});

-- purge_keys: requests --
-- Keys past their time that nobody needs. requests_expiring, messages_by_request.
DELETE FROM requests WHERE seq IN (
    SELECT seq FROM (SELECT seq, message FROM requests WHERE expires_at <= :now ORDER BY expires_at LIMIT :limit) q
    WHERE NOT {still needed});

-- purge_keys: limits --
-- Limiters that are full again. limits_idle.
DELETE FROM limits WHERE bucket IN (SELECT bucket FROM limits WHERE idle_after <= :now LIMIT :limit);

-- purge_relays: events --
-- Events of relays that are older than the log is kept. relay_events_by_time.
DELETE FROM relay_events WHERE seq IN (SELECT seq FROM relay_events WHERE at < ? LIMIT ?);

-- purge_relays: views --
-- What processes saw that tell nothing any more. Whole table, a row for each process and relay.
DELETE FROM relay_views WHERE seen_at < ?;

-- purge_relays: troubles --
-- Troubles that nobody has told of for long after their end. Whole table, a few rows for each account.
DELETE FROM relay_troubles WHERE until < ?;

-- stats: counters --
-- Recipients by state, kept by every transaction. Primary key.
SELECT state, count FROM counters;

-- copied_at: mark --
-- Whether this store is a copy (store/marks). Primary key.
SELECT checksum FROM schema_steps WHERE number = :number;

-- release_copy: mark --
-- It is a store like others from now on. Primary key.
DELETE FROM schema_steps WHERE number = :number RETURNING number;

-- waiting: lanes --
-- What waits by route, priority and state, for operators: every waiting recipient, with its message by row number.
-- recipients_waiting, messages primary key.
SELECT r.route, r.priority, r.state, count(*), sum(r.due_at <= :now), sum(r.in_doubt > 0),
    sum(r.due_at <= :now AND m.created_at <= :copied_at), min(m.created_at)
FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
WHERE r.due_at IS NOT NULL GROUP BY r.route, r.priority, r.state ORDER BY r.route, r.priority, r.state;

-- waiting: first --
-- The waiting recipients that are due first, urgent ones before. recipients_waiting, messages primary key.
SELECT m.id, m.account, r.email, r.route, r.priority, r.state, r.due_at, r.in_doubt, m.created_at, m.subject
FROM recipients r JOIN messages m ON m.seq = r.rid / 1000
WHERE r.due_at IS NOT NULL ORDER BY r.priority, r.due_at, r.rid LIMIT :limit;

-- waiting: attempts --
-- Attempts that were opened and not closed. attempts_open.
SELECT count(*) FROM attempts WHERE closed_at IS NULL;
