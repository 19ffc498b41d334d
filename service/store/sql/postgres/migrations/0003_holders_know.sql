-- additive
-- The newest step of the schema that a process knows: steps of phase post wait for processes that don't know them.

ALTER TABLE holders ADD COLUMN knows integer NOT NULL DEFAULT 0;
