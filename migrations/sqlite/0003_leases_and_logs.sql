-- One row: which store this is, and how often blobs have been collected. While `epoch` is odd, a collection is under way.
CREATE TABLE store (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    id        TEXT NOT NULL,
    epoch     INTEGER NOT NULL
) STRICT;
INSERT INTO store VALUES (1, lower(hex(randomblob(16))), 0);

-- `process` is the boot, PID namespace, PID and start of the process, so that its end can be seen from the same machine; from
-- elsewhere a run is alive while `beat` is young.
ALTER TABLE runs ADD COLUMN process TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN beat TEXT;
ALTER TABLE runs ADD COLUMN cancel TEXT CHECK (cancel IN ('finish', 'now'));
ALTER TABLE runs ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN environment TEXT NOT NULL DEFAULT 'null'; -- JSON: versions, machine, models, sources
ALTER TABLE runs ADD COLUMN includes TEXT NOT NULL DEFAULT '{}';      -- JSON object: text of each included file
CREATE INDEX runs_pipeline ON runs (pipeline, started);

ALTER TABLE tasks ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;

-- `holds` are the artifacts that the artifact names, a JSON array; NULL where nobody has looked yet.
ALTER TABLE artifacts ADD COLUMN holds TEXT;
ALTER TABLE artifacts ADD COLUMN used TEXT NOT NULL DEFAULT '';
UPDATE artifacts SET used = created;

-- Keys that a run computes just now. Valid while the run is alive.
CREATE TABLE leases (
    key       TEXT PRIMARY KEY,
    run       TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    epoch     INTEGER NOT NULL            -- of the store when it was taken
) STRICT, WITHOUT ROWID;
CREATE INDEX leases_run ON leases (run);

CREATE TABLE logs (
    run       TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    seq       INTEGER NOT NULL,
    time      TEXT NOT NULL,
    stage     TEXT,
    shard     INTEGER,
    level     TEXT NOT NULL CHECK (level IN ('info', 'warning', 'error')),
    text      TEXT NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;
