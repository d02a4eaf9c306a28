-- Digests and keys are 64 hexadecimal digits. Durations are seconds.

-- One row: which store this is, and how often blobs have been collected. While `epoch` is odd, a collection is under way.
CREATE TABLE store (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    id        text NOT NULL,
    epoch     bigint NOT NULL
);
INSERT INTO store VALUES (true, replace(gen_random_uuid()::text, '-', ''), 0);

CREATE TABLE runs (
    id          text COLLATE "C" PRIMARY KEY, -- 20261123-151203-k3f9
    pipeline    text NOT NULL,                -- its name
    text        text NOT NULL,                -- the YAML as it was run
    params      json NOT NULL,                -- object; not jsonb, which changes the order
    row_limit   bigint,                       -- each source was cut to so many rows
    command     jsonb NOT NULL,               -- array of arguments
    folder      text NOT NULL,                -- where it was run: relative paths start there
    host        text NOT NULL,
    pid         bigint NOT NULL,
    version     text NOT NULL,                -- of the program
    status      text NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'cancelled')),
    reason      text,                         -- why it did not succeed
    started     timestamptz NOT NULL,
    ended       timestamptz,
    executed    bigint NOT NULL DEFAULT 0,    -- tasks
    cached      bigint NOT NULL DEFAULT 0,    -- tasks
    -- Boot, PID namespace, PID and start of the process, so that its end can be seen from the same machine; from elsewhere a
    -- run is alive while `beat` is young.
    process     text NOT NULL,
    beat        timestamptz NOT NULL,
    cancel      text CHECK (cancel IN ('finish', 'now')),
    epoch       bigint NOT NULL,              -- of the store when it began
    environment jsonb NOT NULL,               -- versions, machine, models, sources
    includes    jsonb NOT NULL,               -- object: text of each included file
    number      bigint GENERATED ALWAYS AS IDENTITY -- which of two came first that began at one moment
);
CREATE INDEX runs_started ON runs (started);
CREATE INDEX runs_pipeline ON runs (pipeline, started);
CREATE INDEX runs_running ON runs (id) WHERE status = 'running';

CREATE TABLE stages (
    run       text COLLATE "C" NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    position  bigint NOT NULL,
    name      text NOT NULL,
    kind      text NOT NULL,
    status    text NOT NULL CHECK (status IN ('waiting', 'running', 'done', 'cached', 'failed', 'cancelled')),
    executed  bigint NOT NULL,                -- tasks
    cached    bigint NOT NULL,                -- tasks
    rows      bigint NOT NULL,
    bad       bigint NOT NULL,                -- rows left out
    seconds   double precision NOT NULL,      -- spent in it, summed over threads
    wall      double precision NOT NULL,      -- during which a task of it was at work
    manifest  text COLLATE "C",               -- digest of the dataset's manifest
    error     text,
    PRIMARY KEY (run, name)
);

CREATE TABLE tasks (
    run       text COLLATE "C" NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    task      bigint NOT NULL,
    stages    jsonb NOT NULL,                 -- array of the stages' names
    shard     bigint,
    attempt   bigint NOT NULL,
    status    text NOT NULL CHECK (status IN ('waiting', 'running', 'done', 'cached', 'failed', 'cancelled')),
    rows      bigint NOT NULL,
    bad       bigint NOT NULL,
    started   timestamptz,
    ended     timestamptz,
    error     text,
    PRIMARY KEY (run, task)
);

-- name is STAGE.NAME; a value without a step is final.
CREATE TABLE metrics (
    run       text COLLATE "C" NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name      text COLLATE "C" NOT NULL,
    step      bigint,
    value     double precision NOT NULL,
    n         bigint,                         -- rows that it was computed from
    n_bad     bigint                          -- rows left out as unusable
);
CREATE UNIQUE INDEX metrics_step ON metrics (run, name, coalesce(step, -1));

-- What is computed already: derived key -> content.
CREATE TABLE artifacts (
    key       text COLLATE "C" PRIMARY KEY,
    digest    text COLLATE "C" NOT NULL,
    rows      bigint NOT NULL,
    bytes     bigint NOT NULL,
    bad       bigint NOT NULL,
    bad_rows  jsonb NOT NULL,                 -- array of {id, reason}, the first few
    holds     jsonb NOT NULL,                 -- array of the digests of artifacts that this one names
    run       text,                           -- that made it
    created   timestamptz NOT NULL,
    used      timestamptz NOT NULL            -- last, give or take ten minutes
);

-- Keys that a run computes just now. Valid while the run is alive.
CREATE TABLE leases (
    key       text COLLATE "C" PRIMARY KEY,
    run       text COLLATE "C" NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    epoch     bigint NOT NULL                 -- of the store when it was taken
);
CREATE INDEX leases_run ON leases (run);

-- Files for people: pictures, reports.
CREATE TABLE files (
    run       text COLLATE "C" NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    stage     text COLLATE "C" NOT NULL,
    name      text COLLATE "C" NOT NULL,
    digest    text COLLATE "C" NOT NULL,
    bytes     bigint NOT NULL,
    PRIMARY KEY (run, stage, name)
);

CREATE TABLE gates (
    run       text COLLATE "C" NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name      text COLLATE "C" NOT NULL,
    metric    text NOT NULL,
    value     double precision,
    min       double precision,
    max       double precision,
    passed    boolean NOT NULL,
    PRIMARY KEY (run, name)
);

CREATE TABLE logs (
    run       text COLLATE "C" NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    seq       bigint NOT NULL,
    time      timestamptz NOT NULL,
    stage     text,
    shard     bigint,
    level     text NOT NULL CHECK (level IN ('info', 'warning', 'error')),
    text      text NOT NULL,
    PRIMARY KEY (run, seq)
);

-- Where a job goes on after it was killed: derived key -> content.
CREATE TABLE checkpoints (
    key       text COLLATE "C" PRIMARY KEY,
    digest    text COLLATE "C" NOT NULL,
    updated   timestamptz NOT NULL
);

-- Digests of large files, so that they are not read again while size and time stay. Each machine has its own files.
CREATE TABLE memos (
    host      text COLLATE "C" NOT NULL,
    path      text COLLATE "C" NOT NULL,
    size      bigint NOT NULL,
    modified  bigint NOT NULL,                -- nanoseconds since 1970
    digest    text COLLATE "C" NOT NULL,
    PRIMARY KEY (host, path)
);
