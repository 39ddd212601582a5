-- Searches that providers made of their own, in the sums of what was used. What was summed up before is not counted.
ALTER TABLE usage ADD COLUMN searches INTEGER NOT NULL DEFAULT 0 CHECK (searches >= 0);
