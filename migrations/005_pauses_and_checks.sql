-- How long a save paused its machine, in ms. NULL: the machine did not run, or an older livesnap saved it.
ALTER TABLE main.snapshots ADD COLUMN pauseMs REAL;

-- When check read all of a pack and found no damage, as ISO 8601. NULL: it has not.
ALTER TABLE main.packs ADD COLUMN verifiedAt TEXT;
