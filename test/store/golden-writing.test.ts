/**
 * Today's code writes the same bytes as when the golden stores were made: from the same input,
 * the same packs and segments, and the same snapshots except IDs and times.
 *
 * If a test here is red, bytes on disk have changed.
 * - If that was not intended, the format was changed by accident: fix the code.
 * - If it was intended and older code can read the new bytes (a better compressor, another order of chunks), say so in
 *   the commit and change the list of exceptions here. The golden stores stay as they are.
 * - If older code cannot read them, the format version must rise.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { pageOps } from '../../src/native/pages.js';
import { copyOfGolden, type GoldenSnapshot, goldenSnapshots } from '../fixtures/golden-stores.js';
import { RECIPES } from '../fixtures/recipes.js';
import { dropScratch, scratchDir } from './scratch.js';

/** SQLite lays out the index, and golden.test.ts compares its rows. The reserve is not in git. */
const NOT_COMPARED = new Set(['store.db', 'reserve']);

/** Replaces what is random: IDs by the order of the saves, and times. All missing parents get the same name. */
class Naming {
  readonly #ordinals: Map<string, number>;

  constructor(readonly snapshots: readonly GoldenSnapshot[]) {
    this.#ordinals = new Map(snapshots.map(({ id }, i) => [id, i]));
  }

  /** `snapshots/ID` as `snapshots/<2>`. A snapshot in quarantine/ is in no list. */
  file(name: string): string {
    return name.replace(/[0-9a-f]{32}/, (id) => `<${this.#ordinals.get(id) ?? 'gone'}>`);
  }

  /** A file with IDs and times replaced by text of the same length. */
  bytes(name: string, bytes: Buffer): Buffer {
    const id = /^(?:snapshots|quarantine)\/([0-9a-f]{32})$/.exec(name)?.[1];
    if (!id && !name.startsWith('tags/')) return bytes;
    const text = bytes
      .toString('latin1')
      .replace(/(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])/g, (other) =>
        String(this.#ordinals.get(other) ?? 'gone').padEnd(32, '-'),
      )
      .replace(/\d{4}-\d\d-\d\dT[\d:.]{12}Z/g, 'yyyy-mm-ddThh:mm:ss.mmmZ');
    const renamed = Buffer.from(text, 'latin1');
    // The digest is made again for the new text. golden.test.ts and the second reader verify the original one.
    if (name.startsWith('snapshots/'))
      createHash('sha256')
        .update(renamed.subarray(0, -32))
        .digest()
        .copy(renamed, renamed.length - 32);
    return renamed;
  }
}

function filesOf(dir: string, snapshots: readonly GoldenSnapshot[]): Map<string, Buffer> {
  const naming = new Naming(snapshots);
  const files = new Map<string, Buffer>();
  for (const name of readdirSync(dir, { recursive: true }) as string[]) {
    if (NOT_COMPARED.has(name) || !statSync(join(dir, name)).isFile()) continue;
    files.set(naming.file(name), naming.bytes(name, readFileSync(join(dir, name))));
  }
  return files;
}

describe('the code of today', () => {
  before(function () {
    if (pageOps.name === 'native') return;
    console.warn('SKIPPED: the portable page code compresses to other bytes');
    this.skip();
  });

  afterEach(function () {
    dropScratch(this);
  });

  for (const [name, recipe] of Object.entries(RECIPES))
    it(`writes the bytes of the golden store ${name}`, async function () {
      const dir = join(scratchDir(this), 'fresh');
      const made = await recipe(dir);
      const golden = goldenSnapshots(name);
      const withoutNames = ({ id, parent, createdAt, ...rest }: GoldenSnapshot): unknown => rest;
      assert.deepEqual(made.map(withoutNames), golden.map(withoutNames), 'the recipe gives the same input');
      const fresh = filesOf(dir, made);
      const before = filesOf(copyOfGolden(this, name), golden);
      assert.deepEqual([...fresh.keys()].sort(), [...before.keys()].sort());
      for (const [file, bytes] of before) {
        const now = fresh.get(file)!;
        const at = bytes.findIndex((byte, i) => byte !== now[i]);
        assert.ok(
          bytes.equals(now),
          `${file} differs at ${at}; it had ${bytes.length} bytes and has ${now.length}`,
        );
      }
    });
});
