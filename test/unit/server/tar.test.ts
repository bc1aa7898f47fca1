/** Archives of stores: made, read, and refused. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { StoreVerbs } from '../../../src/host/store-verbs.js';
import { tarOf, untar } from '../../../src/server/tar.js';

async function bytesOf(parts: AsyncIterable<Buffer>): Promise<Buffer> {
  const all: Buffer[] = [];
  for await (const part of parts) all.push(part);
  return Buffer.concat(all);
}

/** In pieces of this size. */
async function* cut(bytes: Buffer, size = 1000): AsyncGenerator<Buffer> {
  for (let from = 0; from < bytes.length; from += size) yield bytes.subarray(from, from + size);
}

describe('an archive of a store', () => {
  let base: string;
  let exported: string;
  let into: string;
  const MAX = 1 << 30;

  beforeEach(async () => {
    base = mkdtempSync(join(tmpdir(), 'livesnap-tar-'));
    const store = new StoreVerbs(join(base, 'store'));
    writeFileSync(join(base, 'file'), 'hello '.repeat(5000));
    await store.put(join(base, 'file'), { tags: ['a'] });
    exported = join(base, 'exported');
    await store.export('a', exported);
    into = join(base, 'into');
    mkdirSync(into);
  });
  afterEach(() => rmSync(base, { recursive: true, force: true }));

  const made = (): Promise<Buffer> => bytesOf(tarOf(exported, 'a'));
  const refused = (archive: Buffer, message: RegExp): Promise<void> =>
    assert.rejects(untar(cut(archive), mkdtempSync(join(base, 'into-')), MAX), { message });
  const byTar = (...args: string[]): Buffer => execFileSync('tar', args, { maxBuffer: 1 << 26 });

  it('is what tar reads, and is read as what it was', async () => {
    const archive = await made();
    writeFileSync(join(base, 'a.tar'), archive);
    execFileSync('tar', ['-C', into, '--strip-components=1', '-xf', join(base, 'a.tar')]);
    execFileSync('diff', ['-r', exported, into]);
    for (const size of [1, 511, 512, 513, 100_000]) {
      rmSync(into, { recursive: true });
      mkdirSync(into);
      await untar(cut(archive, size), into, MAX);
      const store = new StoreVerbs(join(base, `copy-${size}`));
      const [result] = await store.import(into);
      assert.equal((await store.find('a')).id, result!.id);
      assert.equal(statSync(join(into, 'store.db')).mode & 0o777, 0o600);
    }
  });

  it('may be made by tar, with or without the directory', async () => {
    await untar(cut(byTar('--format=ustar', '-C', exported, '-cf', '-', '.')), into, MAX);
    assert.equal((await new StoreVerbs(into).list()).length, 1);
    rmSync(into, { recursive: true });
    mkdirSync(into);
    await untar(cut(byTar('--format=gnu', '-C', base, '-cf', '-', 'exported')), into, MAX);
    assert.equal((await new StoreVerbs(into).list()).length, 1);
  });

  it('is refused with a link, a file elsewhere, or what no store has', async () => {
    const other = join(base, 'other');
    mkdirSync(other);
    symlinkSync('/etc/passwd', join(other, 'store.db'));
    await refused(byTar('--format=ustar', '-C', other, '-cf', '-', '.'), /which no exported directory has/);
    for (const name of [
      '../store.db',
      '/store.db',
      'packs/../../x',
      'packs/.hidden',
      'x/y/store.db',
      'passwd',
      'a\0b',
    ])
      await refused(await renamed(name), /which no exported directory has|has a file twice/);
    assert.deepEqual(
      readdirSync(base)
        .filter((name) => !name.startsWith('into-'))
        .sort(),
      ['exported', 'file', 'into', 'other', 'store'],
    );
  });

  /** The archive with another name of its first file. */
  async function renamed(name: string): Promise<Buffer> {
    const archive = await made();
    archive.fill(0, 0, 100);
    archive.write(name, 0, 'latin1');
    archive.write('        ', 148, 'latin1');
    let sum = 0;
    for (let i = 0; i < 512; i++) sum += archive[i]!;
    archive.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
    return archive;
  }

  it('is refused when it is cut short, damaged, too large, or has a file twice', async () => {
    const archive = await made();
    for (const length of [0, 100, 512, 600, archive.length - 1024])
      await refused(archive.subarray(0, length), /is cut short/);
    const flipped = Buffer.from(archive);
    flipped[3]! ^= 1;
    await refused(flipped, /wrong checksum/);
    await refused(Buffer.from('x'.repeat(5000)), /not ustar/);
    const end = archive.length - 1024;
    await refused(Buffer.concat([archive.subarray(0, end), archive]), /has a file twice/);
    await assert.rejects(untar(cut(archive), into, 1000), { code: 'NO_SPACE' });
  });

  it('is refused when it never ends, and is not read any further', async () => {
    const one = byTar('--format=ustar', '-C', exported, '--no-recursion', '-cf', '-', 'packs').subarray(
      0,
      512,
    );
    const many = Buffer.concat(Array<Buffer>(1000).fill(one));
    let isLeft = false;
    async function* endless(): AsyncGenerator<Buffer> {
      try {
        for (;;) yield many;
      } finally {
        isLeft = true;
      }
    }
    await assert.rejects(untar(endless(), into, MAX), { message: /has more than 100000 entries/ });
    assert(isLeft);
  });

  it('never writes elsewhere, whatever its bytes are (property)', async () => {
    const archive = await made();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(archive.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }),
        async (changes) => {
          const changed = Buffer.from(archive);
          for (const [at, byte] of changes) changed[at] = byte;
          const target = mkdtempSync(join(base, 'fuzz-'));
          await untar(cut(changed), target, MAX).catch(() => {});
          assert.deepEqual(readFileSync(join(base, 'file'), 'utf8').length, 30_000);
        },
      ),
      { numRuns: 200 },
    );
    assert(readdirSync(base).every((name) => /^(exported|file|into|store|fuzz-.*)$/.test(name)));
  });
});
