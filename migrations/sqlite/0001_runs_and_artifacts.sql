-- Times are UTC, RFC 3339 with milliseconds. Digests and keys are 64 hexadecimal digits. Durations are seconds.

CREATE TABLE runs (
    id        TEXT PRIMARY KEY,           -- 20261123-151203-k3f9
    pipeline  TEXT NOT NULL,              -- its name
    text      TEXT NOT NULL,              -- the YAML as it was run
    params    TEXT NOT NULL,              -- JSON object
    row_limit INTEGER,                    -- each source was cut to so many rows
    command   TEXT NOT NULL,              -- JSON array of arguments
    folder    TEXT NOT NULL,              -- where it was run: relative paths start there
    host      TEXT NOT NULL,
    pid       INTEGER NOT NULL,
    version   TEXT NOT NULL,              -- of the program
    status    TEXT NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'cancelled')),
    reason    TEXT,                       -- why it did not succeed
    started   TEXT NOT NULL,
    ended     TEXT,
    executed  INTEGER NOT NULL DEFAULT 0, -- tasks
    cached    INTEGER NOT NULL DEFAULT 0  -- tasks
) STRICT;
CREATE INDEX runs_started ON runs (started);
CREATE INDEX runs_running ON runs (id) WHERE status = 'running';

CREATE TABLE stages (
    run       TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    position  INTEGER NOT NULL,
    name      TEXT NOT NULL,
    kind      TEXT NOT NULL,
    status    TEXT NOT NULL CHECK (status IN ('waiting', 'running', 'done', 'cached', 'failed', 'cancelled')),
    executed  INTEGER NOT NULL,           -- tasks
    cached    INTEGER NOT NULL,           -- tasks
    rows      INTEGER NOT NULL,
    bad       INTEGER NOT NULL,           -- rows left out
    seconds   REAL NOT NULL,
    manifest  TEXT,                       -- digest of the dataset's manifest
    error     TEXT,
    PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE tasks (
    run       TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    task      INTEGER NOT NULL,
    stages    TEXT NOT NULL,              -- JSON array of the stages' names
    shard     INTEGER,
    status    TEXT NOT NULL CHECK (status IN ('waiting', 'running', 'done', 'cached', 'failed', 'cancelled')),
    rows      INTEGER NOT NULL,
    bad       INTEGER NOT NULL,
    started   TEXT,
    ended     TEXT,
    error     TEXT,
    PRIMARY KEY (run, task)
) STRICT, WITHOUT ROWID;

-- name is STAGE.NAME; a value without a step is final.
CREATE TABLE metrics (
    run       TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name      TEXT NOT NULL,
    step      INTEGER,
    value     REAL,                       -- NULL: not a number
    n         INTEGER,                    -- rows that it was computed from
    n_bad     INTEGER                     -- rows left out as unusable
) STRICT;
CREATE UNIQUE INDEX metrics_step ON metrics (run, name, ifnull(step, -1));

-- What is computed already: derived key -> content.
CREATE TABLE artifacts (
    key       TEXT PRIMARY KEY,
    digest    TEXT NOT NULL,
    rows      INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    bad       INTEGER NOT NULL,
    bad_rows  TEXT NOT NULL,              -- JSON array of {id, reason}, the first few
    run       TEXT,                       -- that made it
    created   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Files for people: pictures, reports.
CREATE TABLE files (
    run       TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    stage     TEXT NOT NULL,
    name      TEXT NOT NULL,
    digest    TEXT NOT NULL,
    bytes     INTEGER NOT NULL,
    PRIMARY KEY (run, stage, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE gates (
    run       TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name      TEXT NOT NULL,
    metric    TEXT NOT NULL,
    value     REAL,
    min       REAL,
    max       REAL,
    passed    INTEGER NOT NULL,
    PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;

-- Where a job goes on after it was killed: derived key -> content.
CREATE TABLE checkpoints (
    key       TEXT PRIMARY KEY,
    digest    TEXT NOT NULL,
    updated   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Digests of large files, so that they are not read again while size and time stay.
CREATE TABLE memos (
    path      TEXT PRIMARY KEY,
    size      INTEGER NOT NULL,
    modified  INTEGER NOT NULL,           -- nanoseconds since 1970
    digest    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
