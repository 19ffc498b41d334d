-- Attempts that are opened while their session is still busy with another: not in doubt before their content is marked.

ALTER TABLE attempts ADD COLUMN ahead INTEGER NOT NULL DEFAULT 0;
