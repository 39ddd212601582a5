-- Who may use this server. A quota that is NULL is the server's usual one.
CREATE TABLE tenants (
    tenant_id   TEXT NOT NULL PRIMARY KEY CHECK (tenant_id <> ''),
    name        TEXT NOT NULL,
    status      TEXT NOT NULL CHECK (status = 'active' OR status = 'suspended'),
    generation  INTEGER NOT NULL CHECK (generation > 0),
    requests_per_minute   INTEGER CHECK (requests_per_minute > 0),
    concurrent_dispatches INTEGER CHECK (concurrent_dispatches > 0),
    created_at  INTEGER NOT NULL,
    checksum    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What its owner calls it. Keys from before this version have no name.
ALTER TABLE api_keys ADD COLUMN name TEXT NOT NULL DEFAULT '';

-- A tenant reads its own part of the trail without touching another's rows.
CREATE INDEX audit_by_tenant ON audit (tenant_id);
