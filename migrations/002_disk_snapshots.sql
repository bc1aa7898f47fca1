-- Snapshots of kind 'disk'. SQLite cannot change a CHECK, so the tables are made again. Dropping `snapshots` alone would
-- delete the tags that refer to it.

CREATE TEMP TABLE oldSnapshots AS SELECT * FROM main.snapshots;
CREATE TEMP TABLE oldTags AS SELECT * FROM main.tags;
DROP TABLE main.tags;
DROP TABLE main.snapshots;

CREATE TABLE main.snapshots (
  id TEXT PRIMARY KEY CHECK (length(id) = 32),
  kind TEXT NOT NULL CHECK (kind IN ('machine', 'file', 'disk')),
  vm TEXT,
  parent TEXT,
  createdAt TEXT NOT NULL,
  memoryBytes INTEGER NOT NULL CHECK (memoryBytes >= 0),
  diskBytes INTEGER NOT NULL CHECK (diskBytes >= 0),
  storedBytes INTEGER NOT NULL CHECK (storedBytes >= 0),
  -- Over all regions.
  logicalBytes INTEGER NOT NULL CHECK (logicalBytes >= 0),
  nonZeroPages INTEGER NOT NULL CHECK (nonZeroPages >= 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE main.tags (
  label TEXT PRIMARY KEY,
  snapshot TEXT NOT NULL UNIQUE REFERENCES snapshots (id) ON DELETE CASCADE,
  -- The first 16 digits of SHA-256 of "label snapshot": a tag's file may lag behind, and cannot vouch for this row.
  digest TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO main.snapshots
  (id, kind, vm, parent, createdAt, memoryBytes, diskBytes, storedBytes, logicalBytes, nonZeroPages)
SELECT id, kind, vm, parent, createdAt, memoryBytes, diskBytes, storedBytes, logicalBytes, nonZeroPages
FROM temp.oldSnapshots;
INSERT INTO main.tags (label, snapshot, digest) SELECT label, snapshot, digest FROM temp.oldTags;
DROP TABLE temp.oldSnapshots;
DROP TABLE temp.oldTags;
