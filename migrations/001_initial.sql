-- The index of a store (docs/format.md, "Index"). It can be rebuilt from packs/, snapshots/ and tags/.
--
-- SQLite stores the text of each CREATE TABLE, with its comments, and livesnap compares it. Never change a comment
-- inside a statement: existing stores would count as damaged.

-- The number of a pack or segment is never used again, so a reference to a deleted pack never finds another one.
CREATE TABLE counters (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL CHECK (value BETWEEN 0 AND 4294967295)
) STRICT, WITHOUT ROWID;

INSERT INTO counters (name, value) VALUES ('nextNumber', 1);

CREATE TABLE packs (
  number INTEGER PRIMARY KEY CHECK (number BETWEEN 1 AND 4294967295),
  generation INTEGER NOT NULL CHECK (generation >= 0),
  chunks INTEGER NOT NULL CHECK (chunks > 0),
  sizeBytes INTEGER NOT NULL CHECK (sizeBytes > 0),
  -- Which run of check --read-data read it last; 0: none has.
  readRun INTEGER NOT NULL DEFAULT 0 CHECK (readRun >= 0)
) STRICT;

-- The files segments/NUMBER.seg. They hold one entry per chunk; the index never has a row per chunk.
CREATE TABLE segments (
  number INTEGER PRIMARY KEY CHECK (number BETWEEN 1 AND 4294967295),
  entries INTEGER NOT NULL CHECK (entries > 0)
) STRICT;

CREATE TABLE snapshots (
  id TEXT PRIMARY KEY CHECK (length(id) = 32),
  kind TEXT NOT NULL CHECK (kind IN ('machine', 'file')),
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

CREATE TABLE tags (
  label TEXT PRIMARY KEY,
  snapshot TEXT NOT NULL UNIQUE REFERENCES snapshots (id) ON DELETE CASCADE,
  -- The first 16 digits of SHA-256 of "label snapshot": a tag's file may lag behind, and cannot vouch for this row.
  digest TEXT NOT NULL
) STRICT, WITHOUT ROWID;
