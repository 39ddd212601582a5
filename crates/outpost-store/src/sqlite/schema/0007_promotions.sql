-- Branches and pull requests that dispatches became: one for each dispatch. The body is the whole record.
CREATE TABLE promotions (
    dispatch_id TEXT PRIMARY KEY,
    tenant_id   TEXT NOT NULL CHECK (tenant_id <> ''),
    status      TEXT NOT NULL,
    generation  INTEGER NOT NULL CHECK (generation > 0),
    is_over     INTEGER NOT NULL CHECK (is_over IN (0, 1)),
    body        TEXT NOT NULL,
    checksum    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What a server takes up when it starts.
CREATE INDEX promotions_open ON promotions (dispatch_id) WHERE is_over = 0;
