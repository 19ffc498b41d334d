-- How often a recipient's charged attempts ended alike, and when it last had a new connection for nothing.

ALTER TABLE recipients ADD COLUMN counted_kind TEXT NOT NULL DEFAULT '';
ALTER TABLE recipients ADD COLUMN kind_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recipients ADD COLUMN reconnected_at INTEGER;
