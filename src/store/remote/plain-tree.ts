/**
 * Checks the directory of a store from an untrusted source, before any file in it is opened.
 *
 * Invariant: only directories and regular files with the names and possible sizes of a store pass. A link would lead
 * elsewhere, and opening a FIFO would hang.
 */
import { lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { LivesnapError } from '../../errors.js';
import {
  DATABASE,
  INDEX_LOCK,
  isTemporary,
  LOCK,
  PACKS,
  parsePackName,
  QUARANTINE,
  RESERVE,
  SEGMENTS,
  SNAPSHOT_ID,
  SNAPSHOTS,
  TAG_LABEL,
  TAGS,
} from '../disk/layout.js';
import { MAX_PACK_BYTES } from '../pack/pack-format.js';
import { MAX_SEGMENT_ENTRIES, parseSegmentName, segmentBytes } from '../segment/segment-file.js';
import { MAX_COPIED_FILE_BYTES } from '../snapshot/snapshot-file.js';

const MAX_ENTRIES = 4_000_000;
/**
 * The size that the index may have: a fixed part, and a part for each file. A row per snapshot, pack, segment and tag
 * is far shorter; the rest is for deleted rows and the log. The limit matters because all rows of a table are in memory
 * at times.
 */
const INDEX_BYTES_PER_FILE = 4096;
const BASE_INDEX_BYTES = 64 << 20;

/** An interrupted creation leaves a journal. */
const INDEX_FILES = ['', '-wal', '-shm', '-journal'].map((suffix) => DATABASE + suffix);
const FILES: Record<string, number> = {
  [LOCK]: 0,
  [INDEX_LOCK]: 0,
  [RESERVE]: 1 << 20,
};

const FOLDERS: Record<string, { isName(name: string): boolean; maxBytes: number }> = {
  [PACKS]: { isName: (name) => parsePackName(name) !== null, maxBytes: MAX_PACK_BYTES },
  [SNAPSHOTS]: { isName: (name) => SNAPSHOT_ID.test(name), maxBytes: MAX_COPIED_FILE_BYTES },
  [TAGS]: { isName: (name) => TAG_LABEL.test(name), maxBytes: 64 },
  [SEGMENTS]: {
    isName: (name) => parseSegmentName(name) !== null,
    maxBytes: segmentBytes(MAX_SEGMENT_ENTRIES),
  },
  [QUARANTINE]: { isName: () => true, maxBytes: MAX_PACK_BYTES },
};

/** Errors: NO_SUCH_FILE, NOT_A_STORE. */
export function requirePlainTree(dir: string): void {
  if (!lstatSync(dir, { throwIfNoEntry: false }))
    throw new LivesnapError('NO_SUCH_FILE', `${dir} does not exist`, {
      hint: 'Name a directory that livesnap export made.',
    });
  if (!lstatSync(dir).isDirectory()) throw refused(dir, 'it is not a directory');
  let entries = 0;
  for (const name of readdirSync(dir)) {
    const path = join(dir, name);
    if (INDEX_FILES.includes(name)) continue;
    const folder = Object.hasOwn(FOLDERS, name) ? FOLDERS[name] : undefined;
    if (!folder) {
      if (!Object.hasOwn(FILES, name)) throw refused(path, 'a store has no file of that name');
      requireFile(path, FILES[name]!);
      continue;
    }
    if (!lstatSync(path).isDirectory()) throw refused(path, 'it is not a directory');
    for (const inner of readdirSync(path)) {
      if (++entries > MAX_ENTRIES) throw refused(path, `it has more than ${MAX_ENTRIES} files`);
      if (!folder.isName(inner) && !isTemporary(inner))
        throw refused(join(path, inner), 'a store has no file of that name');
      requireFile(join(path, inner), folder.maxBytes);
    }
  }
  for (const name of INDEX_FILES)
    if (lstatSync(join(dir, name), { throwIfNoEntry: false }))
      requireFile(join(dir, name), BASE_INDEX_BYTES + entries * INDEX_BYTES_PER_FILE);
}

function requireFile(path: string, maxBytes: number): void {
  const stat = lstatSync(path);
  if (!stat.isFile()) throw refused(path, 'it is not a regular file');
  if (stat.size > maxBytes) throw refused(path, `it has ${stat.size} bytes; the limit is ${maxBytes}`);
}

const refused = (path: string, why: string): LivesnapError =>
  new LivesnapError('NOT_A_STORE', `${path} cannot be part of a store: ${why}`, {
    hint: 'Name a directory that livesnap export or livesnap copy made, with nothing else in it.',
  });
