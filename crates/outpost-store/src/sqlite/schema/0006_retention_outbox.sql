-- What is over is found by when it ended.
CREATE INDEX jobs_by_end ON jobs (completed_at, dispatch_id) WHERE completed_at IS NOT NULL;
CREATE INDEX api_keys_by_expiry ON api_keys (expires_at) WHERE expires_at IS NOT NULL;

-- Dispatches whose record is gone and whose kept files are not, yet.
CREATE TABLE leftovers (
    dispatch_id TEXT NOT NULL PRIMARY KEY CHECK (length(dispatch_id) = 26),
    tenant_id   TEXT NOT NULL,
    ended_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX leftovers_by_end ON leftovers (ended_at, dispatch_id);

-- Who is told of events. The secret that signs is among `secrets`, sealed, under the name of the webhook.
CREATE TABLE webhooks (
    webhook_id TEXT NOT NULL PRIMARY KEY CHECK (length(webhook_id) = 26),
    tenant_id  TEXT NOT NULL CHECK (tenant_id <> ''),
    url        TEXT NOT NULL CHECK (url <> ''),
    events     TEXT NOT NULL CHECK (events <> ''),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX webhooks_by_tenant ON webhooks (tenant_id, webhook_id);

-- What happened, once, however many are told: written with the change it tells of, if anybody is to be told.
CREATE TABLE outbox (
    event_id  TEXT NOT NULL PRIMARY KEY CHECK (event_id <> ''),
    tenant_id TEXT NOT NULL,
    kind      TEXT NOT NULL,
    at        INTEGER NOT NULL,
    body      TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_by_time ON outbox (at);

CREATE TABLE deliveries (
    delivery_id INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook_id  TEXT NOT NULL,
    event_id    TEXT NOT NULL,
    kind        TEXT NOT NULL,
    at          INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state = 'waiting' OR state = 'delivered' OR state = 'dead'),
    tries       INTEGER NOT NULL CHECK (tries >= 0),
    due_at      INTEGER NOT NULL,
    tried_at    INTEGER,
    status_code INTEGER,
    problem     TEXT,
    UNIQUE (webhook_id, event_id)
) STRICT;
CREATE INDEX deliveries_by_webhook ON deliveries (webhook_id, delivery_id);
CREATE INDEX deliveries_due ON deliveries (due_at, delivery_id) WHERE state = 'waiting';
CREATE INDEX deliveries_waiting ON deliveries (webhook_id) WHERE state = 'waiting';
CREATE INDEX deliveries_by_time ON deliveries (at);
