-- `seconds` is the time spent in a stage, summed over threads; `wall` is the time during which a task of it was at work.
ALTER TABLE stages ADD COLUMN wall REAL NOT NULL DEFAULT 0;
