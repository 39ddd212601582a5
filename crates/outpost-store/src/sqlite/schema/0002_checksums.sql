-- The first eight bytes of a SHA-256 over what a reader of the row relies on, so that a damaged row is
-- refused instead of served. Rows from before this version have none.
ALTER TABLE jobs ADD COLUMN checksum INTEGER;
ALTER TABLE api_keys ADD COLUMN checksum INTEGER;
