/**
 * Looks at a store's directory that came from somewhere, before anything in it is opened: it must hold nothing but
 * directories and plain files with a store's names and possible sizes. A link would lead elsewhere, a FIFO would hang.
 */
import { lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { LivesnapError } from '../../errors.js';
import { MAX_PACK_BYTES } from '../format.js';
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
} from '../layout.js';
import { MAX_SEGMENT_ENTRIES, parseSegmentName, segmentBytes } from '../segment-file.js';
import { MAX_COPIED_FILE_BYTES } from '../snapshot-file.js';

const MAX_ENTRIES = 4_000_000;
/**
 * The index has a row a snapshot, pack, segment and tag, far shorter than this; the rest is for what has been removed, and
 * for its log. All rows of a table are in memory at times.
 */
const INDEX_BYTES_A_FILE = 4096;
const LEAST_INDEX_BYTES = 64 << 20;

/** A creation that was cut short leaves a journal. */
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
    throw new LivesnapError('NO_SUCH_FILE', `there is no ${dir}`, {
      hint: 'Name a directory that livesnap export made.',
    });
  if (!lstatSync(dir).isDirectory()) throw refused(dir, 'it is no directory');
  let entries = 0;
  for (const name of readdirSync(dir)) {
    const path = join(dir, name);
    if (INDEX_FILES.includes(name)) continue;
    const folder = Object.hasOwn(FOLDERS, name) ? FOLDERS[name] : undefined;
    if (!folder) {
      if (!Object.hasOwn(FILES, name)) throw refused(path, 'a store has nothing of that name');
      requireFile(path, FILES[name]!);
      continue;
    }
    if (!lstatSync(path).isDirectory()) throw refused(path, 'it is no directory');
    for (const inner of readdirSync(path)) {
      if (++entries > MAX_ENTRIES) throw refused(path, 'there are too many files');
      if (!folder.isName(inner) && !isTemporary(inner))
        throw refused(join(path, inner), 'a store has nothing of that name');
      requireFile(join(path, inner), folder.maxBytes);
    }
  }
  for (const name of INDEX_FILES)
    if (lstatSync(join(dir, name), { throwIfNoEntry: false }))
      requireFile(join(dir, name), LEAST_INDEX_BYTES + entries * INDEX_BYTES_A_FILE);
}

function requireFile(path: string, maxBytes: number): void {
  const stat = lstatSync(path);
  if (!stat.isFile()) throw refused(path, 'it is no plain file');
  if (stat.size > maxBytes) throw refused(path, `it cannot have ${stat.size} bytes`);
}

const refused = (path: string, why: string): LivesnapError =>
  new LivesnapError('NOT_A_STORE', `${path} is refused: ${why}`, {
    hint: 'Only a directory that livesnap export or a copy made is taken from elsewhere.',
  });
