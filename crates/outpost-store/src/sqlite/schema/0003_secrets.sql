-- Values are sealed: the key is elsewhere. The owner is a tenant, or * for the platform.
CREATE TABLE secrets (
    owner        TEXT NOT NULL CHECK (owner <> ''),
    name         TEXT NOT NULL CHECK (name <> ''),
    kind         TEXT NOT NULL CHECK (kind IN ('injected', 'exposed')),
    version      INTEGER NOT NULL CHECK (version > 0),
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    use_count    INTEGER NOT NULL CHECK (use_count >= 0),
    checksum     INTEGER NOT NULL,
    PRIMARY KEY (owner, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE secret_versions (
    owner    TEXT NOT NULL,
    name     TEXT NOT NULL,
    version  INTEGER NOT NULL CHECK (version > 0),
    kind     TEXT NOT NULL CHECK (kind IN ('injected', 'exposed')),
    key_id   BLOB NOT NULL CHECK (length(key_id) = 8),
    envelope BLOB NOT NULL CHECK (length(envelope) > 0),
    PRIMARY KEY (owner, name, version),
    FOREIGN KEY (owner, name) REFERENCES secrets (owner, name) ON DELETE CASCADE
) STRICT;
