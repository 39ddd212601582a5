-- What the dispatches that ended on a day (days since 1970 in UTC) used, summed up as they end. Money is
-- in billionths of a US dollar: `cost` by the price list, `assumed` for calls without a known price.
CREATE TABLE usage (
    tenant_id       TEXT NOT NULL CHECK (tenant_id <> ''),
    day             INTEGER NOT NULL CHECK (day >= 0),
    agent           TEXT NOT NULL CHECK (agent <> ''),
    model_id        TEXT NOT NULL,
    dispatches      INTEGER NOT NULL CHECK (dispatches > 0),
    agent_millis    INTEGER NOT NULL CHECK (agent_millis >= 0),
    input_tokens    INTEGER NOT NULL CHECK (input_tokens >= 0),
    cached_tokens   INTEGER NOT NULL CHECK (cached_tokens >= 0),
    cache_write_tokens INTEGER NOT NULL CHECK (cache_write_tokens >= 0),
    output_tokens   INTEGER NOT NULL CHECK (output_tokens >= 0),
    thinking_tokens INTEGER NOT NULL CHECK (thinking_tokens >= 0),
    cost            INTEGER NOT NULL CHECK (cost >= 0),
    assumed         INTEGER NOT NULL CHECK (assumed >= 0),
    calls           INTEGER NOT NULL CHECK (calls >= 0),
    calls_unpriced  INTEGER NOT NULL CHECK (calls_unpriced >= 0),
    calls_estimated INTEGER NOT NULL CHECK (calls_estimated >= 0),
    PRIMARY KEY (tenant_id, day, agent, model_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_by_day ON usage (day);
