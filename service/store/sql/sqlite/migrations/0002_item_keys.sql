-- An item of a batch may have a key of its own: it names its message, so that it outlives it while it is open.

ALTER TABLE requests ADD COLUMN message INTEGER;
