-- Several tags for a snapshot. SQLite cannot drop a UNIQUE, so the table is made again.

ALTER TABLE main.tags RENAME TO oldTags;

CREATE TABLE main.tags (
  label TEXT PRIMARY KEY,
  snapshot TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
  -- The first 16 digits of SHA-256 of "label snapshot": a tag's file may lag behind, and cannot vouch for this row.
  digest TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX main.tagsOfSnapshot ON tags (snapshot);

INSERT INTO main.tags (label, snapshot, digest) SELECT label, snapshot, digest FROM main.oldTags;
DROP TABLE main.oldTags;
