CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The body is the whole record as JSON; the other columns repeat what is searched. A list after IN would
-- be made into a table of its own by every statement that checks it.
CREATE TABLE jobs (
    dispatch_id  TEXT NOT NULL PRIMARY KEY CHECK (length(dispatch_id) = 26),
    tenant_id    TEXT NOT NULL,
    user_id      TEXT,
    agent        TEXT NOT NULL,
    repo         TEXT,
    status       TEXT NOT NULL CHECK (
                     status = 'PENDING' OR status = 'QUEUED' OR status = 'PROVISIONING' OR
                     status = 'RUNNING' OR status = 'COMPLETING' OR status = 'COMPLETED' OR
                     status = 'FAILED' OR status = 'TIMEOUT' OR status = 'CANCELLED'),
    generation   INTEGER NOT NULL CHECK (generation > 0),
    attempt      INTEGER NOT NULL CHECK (attempt >= 0),
    created_at   INTEGER NOT NULL,
    started_at   INTEGER,
    completed_at INTEGER,
    body         TEXT NOT NULL,
    CHECK ((completed_at IS NOT NULL) =
        (status = 'COMPLETED' OR status = 'FAILED' OR
         status = 'TIMEOUT' OR status = 'CANCELLED'))
) STRICT;

-- Ids carry the time, so every list is ordered by its index.
CREATE INDEX jobs_by_tenant ON jobs (tenant_id, dispatch_id);
CREATE INDEX jobs_by_status ON jobs (tenant_id, status, dispatch_id);
CREATE INDEX jobs_by_agent ON jobs (tenant_id, agent, dispatch_id);
CREATE INDEX jobs_by_user ON jobs (tenant_id, user_id, dispatch_id) WHERE user_id IS NOT NULL;
CREATE INDEX jobs_by_repo ON jobs (tenant_id, repo, dispatch_id) WHERE repo IS NOT NULL;
CREATE INDEX jobs_live ON jobs (dispatch_id) WHERE completed_at IS NULL;

-- No foreign key: it would cost every accept a lookup. Whoever deletes a job deletes its tags.
CREATE TABLE tags (
    tenant_id   TEXT NOT NULL,
    tag         TEXT NOT NULL,
    dispatch_id TEXT NOT NULL,
    PRIMARY KEY (tenant_id, tag, dispatch_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
    dispatch_id TEXT NOT NULL REFERENCES jobs (dispatch_id) ON DELETE CASCADE,
    number      INTEGER NOT NULL CHECK (number > 0),
    epoch       INTEGER NOT NULL CHECK (epoch > 0),
    state       TEXT NOT NULL CHECK (
                    state = 'PROVISIONING' OR state = 'RUNNING' OR state = 'COMPLETING' OR
                    state = 'COMPLETED' OR state = 'FAILED' OR state = 'TIMEOUT' OR
                    state = 'CANCELLED'),
    created_at  INTEGER NOT NULL,
    started_at  INTEGER,
    updated_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    PRIMARY KEY (dispatch_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    dispatch_id TEXT NOT NULL PRIMARY KEY REFERENCES jobs (dispatch_id) ON DELETE CASCADE,
    last_seq    INTEGER NOT NULL CHECK (last_seq >= 0),
    log_bytes   INTEGER NOT NULL CHECK (log_bytes >= 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    tenant_id       TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    body_hash       BLOB NOT NULL CHECK (length(body_hash) = 32),
    dispatch_id     TEXT NOT NULL,
    expires_at      INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, idempotency_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

CREATE TABLE api_keys (
    api_key_id   TEXT NOT NULL PRIMARY KEY CHECK (length(api_key_id) = 26),
    tenant_id    TEXT NOT NULL,
    key_hash     BLOB NOT NULL UNIQUE CHECK (length(key_hash) = 32),
    key_prefix   TEXT NOT NULL,
    scopes       TEXT NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('active', 'revoked', 'expired')),
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,
    usage_count  INTEGER NOT NULL CHECK (usage_count >= 0)
) STRICT, WITHOUT ROWID;
CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, api_key_id);

CREATE TABLE audit (
    seq       INTEGER NOT NULL PRIMARY KEY,
    at        INTEGER NOT NULL,
    tenant_id TEXT NOT NULL,
    actor     TEXT,
    action    TEXT NOT NULL,
    subject   TEXT NOT NULL,
    detail    TEXT NOT NULL,
    prev_hash BLOB NOT NULL CHECK (length(prev_hash) = 32),
    hash      BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
BEGIN SELECT raise(ABORT, 'the audit trail is append-only'); END;
