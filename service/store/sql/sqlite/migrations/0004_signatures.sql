-- Which DKIM keys signed an attempt, beside the sender rule that it was sealed with.

ALTER TABLE attempts ADD COLUMN signed_by TEXT;
