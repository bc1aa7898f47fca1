/** The snapshots and tags that a repaired index will list, read from their files (docs/format.md, "Repair"). */
import { DamageError } from '../disk/damage.js';
import {
  HIGHEST_NUMBER,
  LOOKS_LIKE_ID,
  namesIn,
  SNAPSHOT_ID,
  SNAPSHOTS,
  TAG_LABEL,
  TAGS,
  tagFile,
} from '../disk/layout.js';
import { readSmallFile } from '../disk/store-file.js';
import { BlockList, type Place } from '../snapshot/block-list.js';
import { labelsOf, pauseOf } from '../snapshot/description.js';
import { readSnapshotFile, type SnapshotFile, snapshotFile } from '../snapshot/snapshot-file.js';
import type { Tag } from '../types.js';
import type { RepairReport } from './report.js';

/** Reads the intact snapshots and sets the others aside. `before`: the IDs in the old index; null: it is unreadable. */
export function readSnapshots(report: RepairReport, before: ReadonlySet<string> | null): SnapshotFile[] {
  const { dir } = report;
  const files: SnapshotFile[] = [];
  for (const id of namesIn(dir, SNAPSHOTS).sort()) {
    if (!SNAPSHOT_ID.test(id)) continue;
    try {
      const file = readSnapshotFile(dir, id);
      for (const { places, fingerprints } of file.blocks)
        if (isBeyond(places) || isBeyond(fingerprints))
          throw new DamageError(
            snapshotFile(id),
            null,
            'it refers to a pack with a number above the highest possible one',
          );
      files.push(withoutBulk(file));
      if (before && !before.has(id))
        report.add(
          `Snapshot ${id} was not in the index and is listed now: ` +
            'an rm or a save that was interrupted may have left it.',
        );
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      report.quarantine(error.file, error.why);
    }
  }
  return files;
}

const isBeyond = ({ pack }: Place): boolean => pack > HIGHEST_NUMBER;

/** A snapshot without the parts that repair does not use. All snapshots stay in memory, and a state may be 64 MiB. */
function withoutBulk({ description, blocks, sizeBytes }: SnapshotFile): SnapshotFile {
  return {
    description: {
      ...description,
      machine: { labels: labelsOf(description), pauseMs: pauseOf(description) },
      host: null,
    },
    blocks: new BlockList(Buffer.from(blocks.bytes)), // A copy: these bytes are a view of the whole file's.
    state: new Uint8Array(0),
    sizeBytes,
  };
}

/** Reads the tags of these snapshots. */
export function readTags(report: RepairReport, snapshots: ReadonlySet<string>): Tag[] {
  const { dir } = report;
  const tags: Tag[] = [];
  for (const label of namesIn(dir, TAGS).sort()) {
    if (LOOKS_LIKE_ID.test(label)) report.add(`Tag ${label} was left out: it looks like a snapshot ID.`);
    if (!TAG_LABEL.test(label)) continue;
    try {
      const snapshot = readSmallFile(dir, tagFile(label), 64).toString('latin1').trim();
      if (snapshots.has(snapshot)) tags.push({ tag: label, id: snapshot });
      else report.add(`Tag ${label} was left out: it names a snapshot that does not exist.`);
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      report.quarantine(error.file, error.why);
    }
  }
  return tags;
}
