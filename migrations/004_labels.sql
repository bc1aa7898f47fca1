-- The labels of machines, so that lists can be filtered without reading every snapshot. A JSON object of key and value;
-- NULL: the row was written before there was this column, and the labels are only in the file of the snapshot.

ALTER TABLE main.snapshots ADD COLUMN labels TEXT;

-- Files have no labels.
UPDATE main.snapshots SET labels = '{}' WHERE kind = 'file';
