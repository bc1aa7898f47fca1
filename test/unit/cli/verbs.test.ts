/** Which verbs may take longer than a second, and how each of them shows that it works. A new verb needs a line here. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { VERBS } from '../../../src/cli/verbs.js';
import { projectRoot } from '../../../src/native/project-root.js';

/** `total`: what is known of the total, and with it the time left. */
type Shown = { readonly counts: 'bytes' | 'machines' | 'time'; readonly total: string };

const NO_PROGRESS = {
  quick: 'one request to a machine, or a few reads and writes of the index',
  // bench/README.md measures both with 10 million pages.
  index: 'about a second, and only in a store of many millions of pages',
  prints: 'it prints what happens as it happens',
} as const;

const PROGRESS: Record<string, Shown | keyof typeof NO_PROGRESS> = {
  start: { counts: 'bytes', total: 'the files of a share; without shares it is quick' },
  ps: 'quick',
  logs: 'prints',
  console: 'prints',
  pause: 'quick',
  resume: 'quick',
  stop: { counts: 'time', total: "the guest's time, then the bytes of its disks" },
  save: {
    counts: 'bytes',
    total: 'what differs from the last snapshot, and more if the guest writes meanwhile',
  },
  restore: { counts: 'bytes', total: 'the data of the snapshot' },
  fork: { counts: 'machines', total: '--count; the save before it counts bytes' },
  ls: 'quick',
  show: 'index',
  diff: 'quick',
  tag: 'quick',
  untag: 'quick',
  rm: 'quick',
  forget: { counts: 'bytes', total: 'with --prune that of gc; without it is quick' },
  stats: 'index',
  gc: { counts: 'bytes', total: 'the packs to rewrite' },
  check: { counts: 'bytes', total: 'the packs to verify' },
  repair: { counts: 'bytes', total: 'all packs' },
  copy: { counts: 'bytes', total: 'the pages to send of each snapshot' },
  export: { counts: 'bytes', total: 'the pages to write' },
  import: { counts: 'bytes', total: 'the pages to read of each snapshot' },
  'serve-store': 'prints',
  put: { counts: 'bytes', total: 'the size of a file; a stream has none' },
  get: { counts: 'bytes', total: 'the size of the file' },
  disk: { counts: 'bytes', total: 'the size of the disk' },
  doctor: 'quick',
  demo: 'prints',
  fit: 'quick',
  serve: 'prints',
  open: 'quick',
  completion: 'quick',
  'list-names': 'quick',
};

/** Calls that show progress: of Output, and of the functions that several verbs share. */
const SHOWS = /\b(?:withProgress|runMachine|writeFile)\(/;

describe('progress', () => {
  it('is shown by every verb that may take longer than a second', () => {
    assert.deepEqual(Object.keys(PROGRESS).sort(), [...VERBS.keys()].sort());
    for (const [name, progress] of Object.entries(PROGRESS)) {
      const source = readFileSync(join(projectRoot, 'src/cli', `${name}.ts`), 'utf8');
      assert.equal(SHOWS.test(source), typeof progress !== 'string', name);
    }
  });
});
