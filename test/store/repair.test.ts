/** Repair sets damaged files aside, heals what it can, and names what is lost by snapshot and address. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { LivesnapError } from '../../src/errors.js';
import { pageOps } from '../../src/native/pages.js';
import { parsePackName } from '../../src/store/disk/layout.js';
import {
  decodeFooter,
  encodeFooter,
  encodePackHeader,
  FOOTER_BYTES,
} from '../../src/store/pack/pack-format.js';
import { PackReader } from '../../src/store/pack/pack-reader.js';
import { PackWriter } from '../../src/store/pack/pack-writer.js';
import { Store } from '../../src/store/store.js';
import type { LostRange, RepairResult } from '../../src/store/types.js';
import { dropScratch, load, newStore, noise, save, scratchDir, seeded, textPages } from './scratch.js';

const PAGE = 4096;

function flip(path: string, offset: number, bit = 0): void {
  const bytes = readFileSync(path);
  bytes[offset]! ^= 1 << bit;
  writeFileSync(path, bytes);
}

const packsOf = (dir: string): string[] => readdirSync(join(dir, 'packs')).sort();

/** A frame of a pack: where it is, and which positions it holds. */
function frameOf(
  dir: string,
  name: string,
  index: number,
): { offset: number; first: number; chunks: number } {
  const reader = new PackReader(pageOps, dir, parsePackName(name)!);
  reader.close();
  return reader.frames.at(index);
}

/** The bytes of an intact pack, relabelled as another generation. */
function ofGeneration(pack: Buffer, generation: number): Buffer {
  const bytes = Buffer.from(pack);
  const number = bytes.readUInt32LE(12);
  const own = { number, generation: bytes.readUInt32LE(16) };
  const footer = decodeFooter(pageOps, bytes.subarray(-FOOTER_BYTES), own, bytes.length, 'the pack');
  bytes.set(encodePackHeader(pageOps, { number, generation }, footer.digest));
  bytes.set(encodeFooter(pageOps, { ...footer, generation }), bytes.length - FOOTER_BYTES);
  return bytes;
}

async function using<T>(dir: string, work: (store: Store) => Promise<T>): Promise<T> {
  const store = Store.open(dir, { write: true });
  try {
    return await work(store);
  } finally {
    store.close();
  }
}

const ranges = (lost: readonly LostRange[]) =>
  lost.map(({ region, fromBytes, toBytes }) => [region, fromBytes / PAGE, toBytes / PAGE]);

describe('repair', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('names losses by snapshot and address, keeps everything else, and heals from a later save', async function () {
    const { store, dir } = newStore(this);
    const ram = noise(1, 100);
    const { id } = await save(store, { 'ram@0x0': ram }, { tag: 'mine' });
    const other = { 'ram@0x0': noise(2, 50) };
    await save(store, other, { tag: 'other' });
    store.close();
    const [pack] = packsOf(dir) as [string];
    const frame = frameOf(dir, pack, 2);
    flip(join(dir, 'packs', pack), frame.offset + 1000);

    const result = await Store.repair(dir);
    assert.deepEqual(result.lost, [
      { snapshot: id, tags: ['mine'], region: 'ram@0x0', fromBytes: 32 * PAGE, toBytes: 48 * PAGE },
    ]);
    assert.equal(result.healedChunks, 0);
    assert.deepEqual(readdirSync(join(dir, 'quarantine')), [pack]);
    await using(dir, async (again) => {
      assert.deepEqual(await load(again, 'other'), other);
      await assert.rejects(load(again, 'mine'), (error: LivesnapError) => {
        assert.equal(error.code, 'DAMAGED');
        assert.match(error.message, new RegExp(`${id}.*lost`));
        return true;
      });
      const { problems } = await again.check({ readData: false });
      assert.deepEqual(
        problems.map(({ snapshots, message }) => [snapshots, message]),
        [[[id], 'chunks were lost here']],
      );
      // gc keeps the marks, so check still reports the loss.
      await again.gc({ dryRun: false });
      assert.equal((await again.check({ readData: true })).problems.length, 1);
    });
    const packs = packsOf(dir);
    assert.deepEqual((await Store.repair(dir)).lost, result.lost);
    assert.deepEqual(packsOf(dir), packs, 'a repair that cannot heal anything changes no pack');

    // A later save stores the same pages, at other addresses.
    await using(dir, async (again) => {
      const saved = await save(again, { elsewhere: ram.subarray(30 * PAGE, 60 * PAGE) });
      assert.equal(saved.newChunks, 16, 'a lost chunk is not a hit');
      assert.equal((await again.check({ readData: true })).ok, false);
    });
    const healed = await Store.repair(dir);
    assert.deepEqual([healed.lost, healed.healedChunks], [[], 16]);
    await using(dir, async (again) => {
      assert.deepEqual(await load(again, 'mine'), { 'ram@0x0': ram });
      assert.deepEqual(await again.check({ readData: true }), { ok: true, problems: [] });
      await again.gc({ dryRun: false });
      assert.deepEqual(await load(again, 'mine'), { 'ram@0x0': ram });
    });
  });

  it('reports lost and healed chunks in words that agree with their number', async function () {
    const { store, dir } = newStore(this);
    await save(store, { one: noise(1, 1), two: noise(2, 2) }, { tag: 'mine' });
    await save(store, { three: noise(3, 1) });
    store.close();
    const [pack, second] = packsOf(dir) as [string, string];
    const damageOf = (name: string, frame: number): void =>
      flip(join(dir, 'packs', name), frameOf(dir, name, frame).offset + 50);
    const report = async (): Promise<readonly string[]> => (await Store.repair(dir)).actions;
    damageOf(pack, 0);
    damageOf(second, 0);
    assert.deepEqual(await report(), [
      `packs/${pack} was damaged and moved to quarantine/: 3 of its 7 chunks are lost.`,
      `packs/${second} was damaged and moved to quarantine/: 1 of its 3 chunks is lost.`,
      'The index was rebuilt: 2 snapshots, 1 tag, 2 packs.',
    ]);
    await using(dir, (again) => save(again, { two: noise(2, 2) }));
    const [rewritten, other] = packsOf(dir) as [string, string];
    assert.deepEqual(await report(), [
      `packs/${rewritten} was damaged and moved to quarantine/: 1 of its 7 chunks is lost, 2 were healed.`,
      'The index was rebuilt: 3 snapshots, 1 tag, 3 packs.',
    ]);
    await using(dir, (again) => save(again, { three: noise(3, 1) }));
    assert.deepEqual(await report(), [
      `packs/${other} was damaged and moved to quarantine/: none of its 3 chunks is lost, 1 was healed.`,
      'The index was rebuilt: 4 snapshots, 1 tag, 4 packs.',
    ]);
  });

  it('loses nothing to a flipped bit in a header or trailer, in any generation', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': Buffer.concat([textPages(1, 60), noise(3, 20)]) };
    const whole = await save(store, { 'ram@0x0': Buffer.concat([textPages(2, 80), contents['ram@0x0']]) });
    await save(store, contents, { tag: 'kept' });
    store.remove([whole.id]);
    await store.gc({ dryRun: false });
    store.close();
    const original = join(scratchDir(this), 'original');
    cpSync(dir, original, { recursive: true });
    const next = seeded(7);
    let count = 0;
    for (const pack of packsOf(dir)) {
      const { size } = statSync(join(dir, 'packs', pack));
      const reader = new PackReader(pageOps, dir, parsePackName(pack)!);
      reader.close();
      const trailer = reader.footer.trailerOffset;
      const offsets = [...Array(32).keys(), ...Array.from({ length: 64 }, (_, i) => size - 1 - i)].filter(
        (_, i) => i % 5 === 0,
      );
      for (let offset = trailer; offset < size - 64; offset += 97) offsets.push(offset);
      for (const offset of offsets) {
        count++;
        rmSync(dir, { recursive: true });
        cpSync(original, dir, { recursive: true });
        flip(join(dir, 'packs', pack), offset, next() & 7);
        const { lost } = await Store.repair(dir);
        assert.deepEqual(lost, [], `${pack} at ${offset} of ${size}`);
        await using(dir, async (again) => {
          assert.deepEqual(await load(again, 'kept'), contents);
          assert.deepEqual(await again.check({ readData: true }), { ok: true, problems: [] });
        });
      }
    }
    console.log(`        ${count} flips in headers and trailers, nothing lost`);
  });

  it('changes no snapshot that it does not name, wherever a bit flips', async function () {
    this.timeout(240_000);
    const { store, dir } = newStore(this);
    const truth = new Map<string, Record<string, Buffer>>();
    const ram = Buffer.concat([textPages(1, 40), Buffer.alloc(500 * PAGE), noise(3, 20)]);
    const a = await save(store, { 'ram@0x0': ram });
    truth.set(a.id, { 'ram@0x0': Buffer.from(ram) });
    noise(4, 3).copy(ram, 5 * PAGE);
    const b = await save(store, { 'ram@0x0': ram }, { parent: a.id });
    truth.set(b.id, { 'ram@0x0': Buffer.from(ram) });
    const c = await save(store, { other: textPages(9, 30) });
    truth.set(c.id, { other: textPages(9, 30) });
    store.close();
    const original = join(scratchDir(this), 'original');
    cpSync(dir, original, { recursive: true });
    const next = seeded(11);
    const outcomes = { lost: 0, whole: 0 };
    for (let round = 0; round < 60; round++) {
      rmSync(dir, { recursive: true });
      cpSync(original, dir, { recursive: true });
      const folder = (['packs', 'packs', 'snapshots', 'segments'] as const)[round % 4]!;
      const names = readdirSync(join(dir, folder)).sort();
      const file = join(dir, folder, names[next() % names.length]!);
      flip(file, next() % statSync(file).size, next() & 7);
      const where = `round ${round}: ${file}`;
      const result: RepairResult = await Store.repair(dir);
      const named = new Set(result.lost.map(({ snapshot }) => snapshot));
      await using(dir, async (again) => {
        const there = new Set(again.list().map(({ id }) => id));
        const gone = [...truth.keys()].filter((id) => !there.has(id));
        assert.equal(gone.length, folder === 'snapshots' ? 1 : 0, where);
        for (const id of there)
          if (named.has(id)) await assert.rejects(load(again, id), { code: 'DAMAGED' }, where);
          else assert.deepEqual(await load(again, id), truth.get(id), where);
        const { problems } = await again.check({ readData: true });
        const blamed = new Set(problems.flatMap(({ snapshots }) => snapshots));
        assert.deepEqual([...blamed].sort(), [...named].sort(), where);
        await again.gc({ dryRun: false });
        for (const id of there)
          if (!named.has(id)) assert.deepEqual(await load(again, id), truth.get(id), where);
        // After a save of the same pages, another repair heals everything.
        for (const id of named) await save(again, truth.get(id)!);
      });
      outcomes[named.size > 0 ? 'lost' : 'whole']++;
      if (named.size === 0) continue;
      const healed = await Store.repair(dir);
      assert.deepEqual(ranges(healed.lost), [], where);
      await using(dir, async (again) => {
        for (const id of named) assert.deepEqual(await load(again, id), truth.get(id), where);
        assert.deepEqual(await again.check({ readData: true }), { ok: true, problems: [] }, where);
      });
    }
    console.log(`        60 flips: ${outcomes.lost} lost something that a later save healed`);
    assert.ok(outcomes.lost > 5 && outcomes.whole > 5);
  });

  it('names the losses of a missing pack, and uses the pack again when it comes back from a backup', async function () {
    const { store, dir } = newStore(this);
    const ram = noise(1, 600);
    await save(store, { 'ram@0x0': ram }, { tag: 'mine' });
    await save(store, { 'ram@0x0': noise(2, 10) }, { tag: 'other' });
    store.close();
    const [pack] = packsOf(dir) as [string];
    const backup = join(scratchDir(this), pack);
    copyFileSync(join(dir, 'packs', pack), backup);
    rmSync(join(dir, 'packs', pack));
    const { lost, actions } = await Store.repair(dir);
    assert.deepEqual(ranges(lost), [['ram@0x0', 0, 600]]);
    assert.ok(actions.some((action) => action.includes('is missing')));
    await using(dir, async (again) => {
      await assert.rejects(load(again, 'mine'), { code: 'DAMAGED' });
      await again.gc({ dryRun: false });
      assert.deepEqual(await load(again, 'other'), { 'ram@0x0': noise(2, 10) });
    });
    copyFileSync(backup, join(dir, 'packs', pack));
    assert.deepEqual((await Store.repair(dir)).lost, []);
    await using(dir, async (again) => {
      assert.deepEqual(await load(again, 'mine'), { 'ram@0x0': ram });
      assert.deepEqual(await again.check({ readData: true }), { ok: true, problems: [] });
    });
  });

  it('keeps the readable part of a truncated pack that a snapshot needs', async function () {
    const { store, dir } = newStore(this);
    const ram = noise(1, 100);
    await save(store, { 'ram@0x0': ram });
    const again = await save(store, { part: ram.subarray(0, 64 * PAGE) }, { tag: 'part' });
    assert.ok(again.newChunks <= 2);
    store.close();
    const [pack] = packsOf(dir) as [string];
    const path = join(dir, 'packs', pack);
    truncateSync(path, frameOf(dir, pack, 5).offset + 77);
    writeFileSync(join(dir, 'packs', '000000ff-0.pack'), readFileSync(path).subarray(0, 20_000));
    const { lost } = await Store.repair(dir);
    assert.deepEqual(ranges(lost), [['ram@0x0', 0, 100]], 'the manifest was at the end of the pack');
    assert.ok(existsSync(join(dir, 'packs', '000000ff-0.pack')), 'no snapshot needs it: it is left to gc');
    await using(dir, async (repaired) => {
      assert.deepEqual(await load(repaired, 'part'), { part: ram.subarray(0, 64 * PAGE) });
      await repaired.gc({ dryRun: false });
      assert.deepEqual(await load(repaired, 'part'), { part: ram.subarray(0, 64 * PAGE) });
    });
  });

  it('names the pages that are lost where an intact pack of another store has the right name', async function () {
    const make = async (seed: number): Promise<string> => {
      const { store, dir } = newStore(this);
      const ram = noise(seed, 40);
      const { id } = await save(store, { 'ram@0x0': ram });
      const grown = Buffer.concat([ram, noise(9, 2)]);
      await save(store, { 'ram@0x0': grown }, { parent: id, only: { 'ram@0x0': [40, 41] }, tag: 'mine' });
      store.remove([id]); // its manifest is in the first pack and would reveal the swap
      store.close();
      return dir;
    };
    const [dir, other] = [await make(1), await make(2)];
    const [pack] = packsOf(dir) as [string];
    assert.deepEqual(packsOf(other), packsOf(dir));
    copyFileSync(join(other, 'packs', pack), join(dir, 'packs', pack));
    const requireFound = (): Promise<void> =>
      using(dir, async (store) => {
        const { problems } = await store.check({ readData: true });
        const id = store.resolve('mine');
        assert.deepEqual(
          problems.map(({ file, offset, snapshots }) => ({ file, offset, snapshots })),
          [{ file: `packs/${pack}`, offset: 32, snapshots: [id] }],
        );
        await assert.rejects(load(store, 'mine'), { code: 'DAMAGED' });
      });
    await requireFound();
    const { lost } = await Store.repair(dir);
    assert.deepEqual(ranges(lost), [['ram@0x0', 0, 40]]);
    await requireFound();
  });

  it('lists missing chunks as lost in a new generation, and sets all others aside', async function () {
    const make = async (pages: number): Promise<string> => {
      const { store, dir } = newStore(this);
      await save(store, { 'ram@0x0': noise(pages, pages) }, { tag: 'mine' });
      store.close();
      return dir;
    };
    const [dir, other] = [await make(40), await make(3)];
    const [pack] = packsOf(dir) as [string];
    assert.deepEqual(packsOf(other), [pack]);
    const put = (name: string, from: string): void => copyFileSync(from, join(dir, 'packs', name));
    const [own, foreign] = [join(scratchDir(this), 'own'), join(other, 'packs', pack)];
    copyFileSync(join(dir, 'packs', pack), own);
    put(pack, foreign);
    const empty = pack.replace('-0.', '-1.');
    writeFileSync(join(dir, 'packs', empty), '');
    const { lost } = await Store.repair(dir);
    assert.deepEqual(ranges(lost), [['ram@0x0', 0, 40]]);
    assert.deepEqual(packsOf(dir), [pack.replace('-0.', '-2.')]);
    assert.deepEqual(readdirSync(join(dir, 'quarantine')).sort(), [pack, empty].sort());
    assert.deepEqual((await Store.repair(dir)).lost, lost);
    assert.deepEqual(packsOf(dir), [pack.replace('-0.', '-2.')]);

    // A chunk that another generation has is not missing.
    put(pack, foreign);
    put(pack.replace('-0.', '-7.'), own);
    const better = await Store.repair(dir);
    assert.deepEqual(ranges(better.lost), [['ram@0x0', 0, 5]], 'the other store has these chunks too');
    assert.deepEqual(packsOf(dir), [pack.replace('-0.', '-8.')]);
    assert.deepEqual((await Store.repair(dir)).lost, better.lost);
    // A pack that comes back from a backup counts again.
    put(pack, own);
    assert.deepEqual((await Store.repair(dir)).lost, []);
  });

  it('does not replace lost pages by those of another store', async function () {
    const make = async (seed: number): Promise<string> => {
      const { store, dir } = newStore(this);
      await save(store, { 'ram@0x0': noise(seed, 40) }, { tag: 'mine' });
      store.close();
      return dir;
    };
    const [dir, other] = [await make(1), await make(2)];
    const [pack] = packsOf(dir) as [string];
    flip(join(dir, 'packs', pack), frameOf(dir, pack, 0).offset + 1000);
    const foreign = ofGeneration(readFileSync(join(other, 'packs', pack)), 1);
    writeFileSync(join(dir, 'packs', pack.replace('-0.', '-1.')), foreign);
    for (let run = 1; run <= 2; run++) {
      assert.deepEqual(ranges((await Store.repair(dir)).lost), [['ram@0x0', 0, 16]], `run ${run}`);
      assert.deepEqual(packsOf(dir), [pack.replace('-0.', '-2.')], `run ${run}`);
      await using(dir, async (repaired) => {
        const { problems } = await repaired.check({ readData: true });
        assert.deepEqual(
          problems.map(({ message }) => message),
          ['chunks were lost here'],
        );
      });
    }
  });

  it('has the same result for any generations that it finds', async function () {
    const { store, dir } = newStore(this);
    const ram = noise(1, 40);
    await save(store, { 'ram@0x0': ram }, { tag: 'mine' });
    store.close();
    const original = join(scratchDir(this), 'original');
    cpSync(dir, original, { recursive: true });
    const [pack] = packsOf(dir) as [string];
    const path = join(dir, 'packs', pack);
    const { offset } = frameOf(dir, pack, 1);
    for (const generations of [
      [0, 999_000_000],
      [0, 999_000_001],
      [0, 999_999_999],
      [999_999_998, 999_999_999],
      [999_999, 1_000_000, 999_999_999],
      [999_999_999],
    ]) {
      rmSync(dir, { recursive: true });
      cpSync(original, dir, { recursive: true });
      const whole = readFileSync(path);
      rmSync(path);
      // Each generation is damaged, but together they have everything.
      generations.forEach((generation, i) => {
        const bytes = ofGeneration(whole, generation);
        bytes[i === 0 ? 3 : offset + 1000]! ^= 1;
        writeFileSync(path.replace('-0.', `-${generation}.`), bytes);
      });
      for (let run = 1; run <= 3; run++) {
        const where = `${generations.join(', ')}, run ${run}`;
        assert.deepEqual((await Store.repair(dir)).lost, [], where);
        assert.equal(packsOf(dir).length, 1, where);
        assert.equal(readdirSync(join(dir, 'quarantine')).length, generations.length, where);
        await using(dir, async (repaired) => {
          assert.deepEqual(await load(repaired, 'mine'), { 'ram@0x0': ram }, where);
          assert.deepEqual(await repaired.check({ readData: true }), { ok: true, problems: [] }, where);
        });
      }
    }
  });

  it('lists a pack of any generation, and gc rewrites it unless it is the last one', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 40) };
    const whole = await save(store, contents);
    const part = { 'ram@0x0': contents['ram@0x0'].subarray(0, 20 * PAGE) };
    await save(store, part, { tag: 'part' });
    store.remove([whole.id]);
    store.close();
    const original = join(scratchDir(this), 'original');
    cpSync(dir, original, { recursive: true });
    const [pack] = packsOf(dir) as [string];
    for (const [generation, next] of [
      [999_000_000, 999_000_001],
      [999_999_998, 999_999_999],
      [999_999_999, 999_999_999],
    ]) {
      rmSync(dir, { recursive: true });
      cpSync(original, dir, { recursive: true });
      const bytes = readFileSync(join(dir, 'packs', pack));
      rmSync(join(dir, 'packs', pack));
      writeFileSync(
        join(dir, 'packs', pack.replace('-0.', `-${generation}.`)),
        ofGeneration(bytes, generation!),
      );
      for (let run = 1; run <= 2; run++) {
        const where = `${generation}, run ${run}`;
        assert.deepEqual((await Store.repair(dir)).lost, [], where);
        await using(dir, async (repaired) => {
          for (const dryRun of [true, false]) await repaired.gc({ dryRun });
          assert.deepEqual(await load(repaired, 'part'), part, where);
          assert.deepEqual(await repaired.check({ readData: true }), { ok: true, problems: [] }, where);
        });
        assert.equal(packsOf(dir)[0], pack.replace('-0.', `-${next}.`), where);
        assert.ok(!existsSync(join(dir, 'quarantine')), where);
      }
    }
  });

  it('sets aside a pack of which nothing is left and that no snapshot needs', async function () {
    const { store, dir } = newStore(this);
    await save(store, { 'ram@0x0': noise(1, 3) }, { tag: 'kept' });
    const { id } = await save(store, { 'ram@0x0': noise(2, 3) });
    store.remove([id]);
    store.close();
    const [, pack] = packsOf(dir) as [string, string];
    for (const index of [0, 1]) flip(join(dir, 'packs', pack), frameOf(dir, pack, index).offset + 50);
    flip(join(dir, 'packs', pack), statSync(join(dir, 'packs', pack)).size - 100); // the list of identities
    const { lost, actions } = await Store.repair(dir);
    assert.deepEqual(lost, []);
    assert.ok(actions.some((action) => action.includes(pack) && action.includes('nothing in it')));
    assert.deepEqual(readdirSync(join(dir, 'quarantine')), [pack]);
    await using(dir, async (repaired) => {
      assert.deepEqual(await repaired.check({ readData: true }), { ok: true, problems: [] });
      assert.deepEqual(await load(repaired, 'kept'), { 'ram@0x0': noise(1, 3) });
    });
  });

  it('lists no pack and no snapshot that would make an impossible row of the index', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': noise(1, 3) });
    await save(store, { 'ram@0x0': noise(2, 3) }, { tag: 'kept' });
    store.close();
    // Their checksums hold, but no livesnap writes such packs.
    for (const [number, chunks] of [
      [0, 1],
      [99, 0],
    ] as const) {
      const writer = new PackWriter(pageOps, dir, number, 0);
      for (let i = 0; i < chunks; i++) writer.append(noise(3, 1), 0, Buffer.alloc(8, 1), false);
      writer.seal();
      writer.close();
    }
    const path = join(dir, 'snapshots', id);
    const text = readFileSync(path, 'latin1').replace('"nonZeroPages":3', '"nonZeroPagez":3');
    const bytes = Buffer.from(text, 'latin1');
    createHash('sha256')
      .update(bytes.subarray(0, -32))
      .digest()
      .copy(bytes, bytes.length - 32);
    writeFileSync(path, bytes);
    await Store.repair(dir);
    assert.deepEqual(readdirSync(join(dir, 'quarantine')), [id]);
    await using(dir, async (repaired) => {
      assert.deepEqual(
        repaired.list().map(({ tags }) => tags),
        [['kept']],
      );
      assert.deepEqual(await repaired.check({ readData: true }), { ok: true, problems: [] });
      await repaired.gc({ dryRun: false });
      assert.ok(!existsSync(join(dir, 'packs', '00000063-0.pack')));
    });
  });

  it('leaves out a tag that looks like an ID, and reports it', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { x: noise(1, 3) });
    const mine = await save(store, { x: noise(2, 3) });
    store.close();
    writeFileSync(join(dir, 'tags', mine.id), `${id}\n`);
    const { actions } = await Store.repair(dir);
    assert.ok(
      actions.some((sentence) => sentence.includes(mine.id) && /looks like a snapshot ID/.test(sentence)),
      actions.join('\n'),
    );
    await using(dir, async (repaired) => {
      assert.deepEqual(
        repaired.list().map(({ tags }) => tags),
        [[], []],
      );
      assert.deepEqual(await load(repaired, mine.id), { x: noise(2, 3) });
      assert.deepEqual(await repaired.check({ readData: true }), { ok: true, problems: [] });
    });
  });

  it('creates the directories that a copy without empty ones lacks', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 20) };
    const { id } = await save(store, contents);
    store.close();
    for (const name of ['store.db', 'tags', 'segments']) rmSync(join(dir, name), { recursive: true });
    assert.throws(() => Store.open(dir, { write: true }), { code: 'NOT_A_STORE', hint: /repair/ });
    assert.deepEqual((await Store.repair(dir)).lost, []);
    await using(dir, async (repaired) => {
      assert.deepEqual(await load(repaired, id), contents);
      assert.deepEqual(await repaired.check({ readData: true }), { ok: true, problems: [] });
    });
    for (const name of ['tags', 'segments'])
      assert.equal(statSync(join(dir, name)).mode & 0o777, 0o700, name);
    rmSync(join(dir, 'tags'), { recursive: true });
    writeFileSync(join(dir, 'tags'), '');
    await assert.rejects(Store.repair(dir), { code: 'NOT_A_STORE' });
  });

  it('has the same result after an interrupted repair', async function () {
    const { store, dir } = newStore(this);
    const ram = noise(1, 100);
    await save(store, { 'ram@0x0': ram }, { tag: 'mine' });
    store.close();
    const [pack] = packsOf(dir) as [string];
    flip(join(dir, 'packs', pack), frameOf(dir, pack, 0).offset + 500);
    const before = join(scratchDir(this), 'before');
    cpSync(dir, before, { recursive: true });
    const { lost } = await Store.repair(dir);
    // As if it had been killed after writing the new generation, before anything was moved.
    const [rewritten] = packsOf(dir) as [string];
    mkdirSync(join(dir, '..', 'half'));
    cpSync(before, join(dir, '..', 'half'), { recursive: true });
    copyFileSync(join(dir, 'packs', rewritten), join(dir, '..', 'half', 'packs', rewritten));
    // As if it had been killed before the new index was in place.
    const moved = join(dir, '..', 'moved');
    cpSync(dir, moved, { recursive: true });
    copyFileSync(join(before, 'store.db'), join(moved, 'store.db'));
    for (const half of [join(dir, '..', 'half'), moved]) {
      await using(half, (cut) => assert.rejects(load(cut, 'mine'), { code: 'DAMAGED' }));
      assert.deepEqual((await Store.repair(half)).lost, lost);
      assert.equal(packsOf(half).length, 1);
    }
  });
});
