-- What an attempt took of its relay's quotas, and which quota put a recipient off. Limiters keep moments from here on;
-- what the slices of before knew is less, so all begin anew once.

ALTER TABLE attempts ADD COLUMN taken TEXT;
ALTER TABLE recipients ADD COLUMN held_by TEXT;
DELETE FROM limits;
