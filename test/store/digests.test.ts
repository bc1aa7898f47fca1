/**
 * Stores whose packs have digests of several IDs: damage, gc, repair, deduplication, and copies between them by every
 * remote.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { basename, join } from 'node:path';
import fc from 'fast-check';
import { pageOps } from '../../src/native/pages.js';
import { readRegion, regionReaderError } from '../../src/native/region-reader.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { parsePackName } from '../../src/store/disk/layout.js';
import { BLAKE3, DIGESTS, digestsOf, SHA256 } from '../../src/store/pack/digest.js';
import {
  decodeFooter,
  encodeFooter,
  encodePackHeader,
  FOOTER_BYTES,
  identitiesBytes,
  type PackFooter,
  tablesBytes,
} from '../../src/store/pack/pack-format.js';
import { PackReader } from '../../src/store/pack/pack-reader.js';
import { exportSnapshot, importSnapshots } from '../../src/store/remote/export.js';
import { Store } from '../../src/store/store.js';
import { filesOf } from '../fixtures/golden-stores.js';
import { copy, requireEqual, requireSound, silent } from './copying.js';
import { remoteCommandHere, useSsh } from './fake-ssh.js';
import { IndependentReader } from './independent-reader.js';
import { openRegion } from './regions.js';
import { dropScratch, flipBit, load, noise, onDrop, save, scratchDir, textPages } from './scratch.js';
import { serve } from './web-server.js';

const NAMES = DIGESTS.map(({ name }) => name);
/** The digest of a pack, and another one. */
const PAIRS = [
  [SHA256, BLAKE3],
  [BLAKE3, SHA256],
] as const;
const RAM = Buffer.concat([noise(1, 40), textPages(2, 60)]);

const packsOf = (dir: string): string[] => readdirSync(join(dir, 'packs')).sort();

/** A store in which new packs get digests of this ID; closed with the test. */
function storeWith(
  context: Mocha.Context,
  digest: number,
  dir = join(scratchDir(context), 'store'),
  bits = 64,
) {
  const store = Store.open(dir, { write: true, create: true, digest, fingerprintBits: bits });
  onDrop(context, () => store.close());
  return { store, dir };
}

function readPack<T>(dir: string, name: string, read: (reader: PackReader) => T): T {
  const reader = new PackReader(pageOps, dir, parsePackName(name)!);
  try {
    return read(reader);
  } finally {
    reader.close();
  }
}

/** The IDs of the digests of all packs. */
const idsIn = (dir: string): number[] => [
  ...new Set(packsOf(dir).map((name) => readPack(dir, name, ({ footer }) => footer.digest))),
];

/** Changes footer and identities of a pack, and gives it checksums that are right. */
function reseal(path: string, change: (footer: PackFooter, digests: Buffer) => PackFooter): void {
  const pack = parsePackName(basename(path))!;
  const bytes = readFileSync(path);
  const footer = decodeFooter(pageOps, bytes.subarray(-FOOTER_BYTES), pack, bytes.length, path);
  const at = footer.trailerOffset + tablesBytes(footer);
  const identities = bytes.subarray(at, at + identitiesBytes(footer.chunks));
  const changed = change(footer, identities.subarray(8 * footer.chunks));
  const sum = Buffer.alloc(8);
  pageOps.checksum(identities, 0, identities.length, 0, 0, sum);
  bytes.set(encodePackHeader(pageOps, pack, changed.digest));
  bytes.set(
    encodeFooter(pageOps, { ...changed, identitiesChecksum: sum.readBigUInt64LE() }),
    bytes.length - FOOTER_BYTES,
  );
  writeFileSync(path, bytes);
}

describe('a store with digests of any ID', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const [id, other] of PAIRS) {
    const name = NAMES[id]!;

    it(`finds a wrong digest by reading the data: ${name}`, async function () {
      const { store, dir } = storeWith(this, id);
      const saved = await save(store, { 'ram@0x0': RAM });
      const [pack] = packsOf(dir) as [string];
      reseal(join(dir, 'packs', pack), (footer, digests) => {
        digests[5 * 32]! ^= 1;
        return footer;
      });
      assert.deepEqual(await store.check({ readData: false }), { ok: true, problems: [] });
      const { problems } = await store.check({ readData: true });
      assert.deepEqual(
        problems.map(({ file, message, snapshots }) => ({ file, message, snapshots })),
        [
          {
            file: `packs/${pack}`,
            message: 'chunks are not those that the pack lists',
            snapshots: [saved.id],
          },
        ],
      );
    });

    it(`takes a pack that claims ${NAMES[other]} but has ${name} for damaged`, async function () {
      const { store, dir } = storeWith(this, id);
      await save(store, { 'ram@0x0': RAM }, { tag: 'a' });
      const [pack] = packsOf(dir) as [string];
      reseal(join(dir, 'packs', pack), (footer) => ({ ...footer, digest: other }));
      const frames = readPack(dir, pack, (reader) => reader.frames.length);
      const { problems } = await store.check({ readData: true });
      assert.equal(problems.length, frames, 'no frame passes');
      const there = join(scratchDir(this), 'there');
      await assert.rejects(copy(dir, 'to', there, ['a']), {
        code: 'REMOTE_FAILED',
        message: /does not match its digest/,
      });
      const result = await store.gc({ dryRun: false, recompress: true });
      assert.equal(result.recompressed!.leftPacks.damaged, 1);
      assert.deepEqual(packsOf(dir), [pack]);
    });

    it(`keeps the ID and the digests of a pack that gc rewrites: ${name}`, async function () {
      const { store, dir } = storeWith(this, id);
      const first = await save(store, { 'ram@0x0': Buffer.concat([noise(3, 30), RAM]) });
      const kept = await save(store, { 'ram@0x0': RAM });
      const digestOf = (pack: string, fingerprint: bigint): string =>
        readPack(dir, pack, (reader) => {
          const { fingerprints, digests } = reader.readIdentities();
          const at = reader.numbers.findIndex((_, i) => fingerprints.readBigUInt64LE(8 * i) === fingerprint);
          return digests.subarray(32 * at, 32 * at + 32).toString('hex');
        });
      const [before] = packsOf(dir) as [string];
      const print = Buffer.alloc(8);
      pageOps.hashPages(RAM, 1, print);
      const expected = digestsOf(pageOps, id, RAM, 1).toString('hex');
      assert.equal(digestOf(before, print.readBigUInt64LE()), expected);
      store.remove([first.id]);
      store.close();
      // Whatever digest new packs get.
      for (const options of [{}, { recompress: true }]) {
        const { store: again } = storeWith(this, other, dir);
        await again.gc({ dryRun: false, ...options });
        again.close();
        assert.deepEqual(idsIn(dir), [id]);
      }
      const [after] = packsOf(dir) as [string];
      assert.equal(after, before.replace('-0.', '-2.'));
      assert.equal(digestOf(after, print.readBigUInt64LE()), expected);
      const { store: last } = storeWith(this, other, dir);
      assert.deepEqual(await load(last, kept.id), { 'ram@0x0': RAM });
      await requireSound(last);
    });

    it(`deduplicates new pages against packs with ${name}, whatever digest new packs get`, async function () {
      const { store, dir } = storeWith(this, id);
      const parent = await save(store, { 'ram@0x0': RAM });
      store.close();
      const { store: later } = storeWith(this, other, dir);
      assert.equal((await save(later, { 'ram@0x0': RAM })).newChunks, 0);
      const changed = Buffer.concat([RAM.subarray(0, 90 * PAGE_BYTES), noise(4, 10)]);
      const only = { 'ram@0x0': Array.from({ length: 10 }, (_, i) => 90 + i) };
      const child = await save(later, { 'ram@0x0': changed }, { parent: parent.id, only });
      assert.equal(child.newChunks, 10);
      assert.deepEqual(idsIn(dir), [id, other]);
      assert.deepEqual(await load(later, child.id), { 'ram@0x0': changed });
      await requireSound(later);
      const reader = new IndependentReader(dir);
      assert.ok(reader.read(child.id).regions['ram@0x0']!.equals(changed));
    });

    it(`heals chunks with ${name} by chunks with ${NAMES[other]}, and the pack keeps its ID`, async function () {
      const { store, dir } = storeWith(this, id);
      const { id: snapshot } = await save(store, { 'ram@0x0': RAM });
      store.close();
      const [pack] = packsOf(dir) as [string];
      const digests = readPack(dir, pack, (reader) => Buffer.from(reader.readIdentities().digests));
      flipBit(join(dir, 'packs', pack), 5000);
      // The pages of the damaged frame are stored again, with another digest.
      const { store: later } = storeWith(this, other, dir);
      assert.equal((await save(later, { disk: RAM.subarray(0, 16 * PAGE_BYTES) })).newChunks, 16);
      later.close();
      const { lost, healedChunks } = await Store.repair(dir);
      assert.deepEqual([lost, healedChunks], [[], 16]);
      const [repaired] = packsOf(dir) as [string];
      assert.equal(repaired, pack.replace('-0.', '-1.'));
      readPack(dir, repaired, (reader) => {
        assert.equal(reader.footer.digest, id);
        assert.ok(reader.readIdentities().digests.equals(digests));
      });
      const { store: last } = storeWith(this, other, dir);
      assert.deepEqual(await load(last, snapshot), { 'ram@0x0': RAM });
      await requireSound(last);
    });

    it(`marks a chunk with ${name} as lost, and heals it when it is saved with ${NAMES[other]}`, async function () {
      const { store, dir } = storeWith(this, id);
      const { id: snapshot } = await save(store, { 'ram@0x0': RAM });
      store.close();
      flipBit(join(dir, 'packs', packsOf(dir)[0]!), 5000);
      assert.equal((await Store.repair(dir)).lost.length, 1);
      assert.deepEqual(idsIn(dir), [id]);
      const { store: later } = storeWith(this, other, dir);
      await save(later, { disk: RAM });
      later.close();
      assert.deepEqual((await Store.repair(dir)).lost, []);
      const { store: last } = storeWith(this, other, dir);
      assert.deepEqual(await load(last, snapshot), { 'ram@0x0': RAM });
      await requireSound(last);
    });

    it(`never mixes IDs in a pack that repair salvages from generations with ${name} and ${NAMES[other]}`, async function () {
      const { store, dir } = storeWith(this, id);
      const { id: snapshot } = await save(store, { 'ram@0x0': RAM });
      store.close();
      const foreign = storeWith(this, other);
      await save(foreign.store, { 'ram@0x0': Buffer.concat([RAM, noise(6, 40)]) });
      foreign.store.close();
      const [pack] = packsOf(dir) as [string];
      // The higher generation has a frame that the lower one has lost, and chunks that the lower one never had.
      writeFileSync(
        join(dir, 'packs', pack.replace('-0.', '-1.')),
        asNextGeneration(join(foreign.dir, 'packs', pack)),
      );
      flipBit(join(dir, 'packs', pack), 5000);
      const { lost } = await Store.repair(dir);
      assert.deepEqual(lost, []);
      const [repaired] = packsOf(dir) as [string];
      readPack(dir, repaired, (reader) => {
        assert.equal(reader.footer.digest, id);
        assert.equal(reader.numbers.length, 142);
      });
      const { store: last } = storeWith(this, other, dir);
      assert.deepEqual(await load(last, snapshot), { 'ram@0x0': RAM });
      await requireSound(last);
    });

    it(`gives digests of one ID to a pack with ${name} whose trailer was lost`, async function () {
      const { store, dir } = storeWith(this, id);
      const { id: snapshot } = await save(store, { 'ram@0x0': RAM });
      store.close();
      const path = join(dir, 'packs', packsOf(dir)[0]!);
      writeFileSync(path, readFileSync(path).subarray(0, -200));
      assert.deepEqual((await Store.repair(dir)).lost, []);
      assert.equal(idsIn(dir).length, 1);
      const { store: last } = storeWith(this, id, dir);
      assert.deepEqual(await load(last, snapshot), { 'ram@0x0': RAM });
      await requireSound(last);
    });

    for (const remote of [
      'a directory',
      'ssh',
      'http with ranges',
      'http without ranges',
      'an export',
    ] as const)
      it(`is copied from ${name} packs to a store of ${NAMES[other]} packs by ${remote}`, async function () {
        const { store: there, dir: source } = storeWith(this, id);
        const { id: snapshot } = await save(there, { 'ram@0x0': RAM, disk: noise(5, 30) }, { tag: 'a' });
        const { store: here, dir } = storeWith(this, other);
        // 50 of its 130 pages are there, under another digest.
        await save(here, { other: RAM.subarray(20 * PAGE_BYTES, 70 * PAGE_BYTES) });
        assert.deepEqual([idsIn(source), idsIn(dir)], [[id], [other]]);
        let presentChunks = 0;
        const into = {
          ...silent,
          onPlan: (plan: { presentChunks: number }) => {
            presentChunks = plan.presentChunks;
          },
        };
        if (remote === 'an export') {
          const exported = join(scratchDir(this), 'exported');
          await exportSnapshot({ ...silent, storeDir: source, ref: 'a', to: exported });
          await importSnapshots({ ...into, storeDir: dir, from: exported });
        } else {
          if (remote === 'ssh') useSsh(this, remoteCommandHere);
          const address =
            remote === 'a directory'
              ? source
              : remote === 'ssh'
                ? `ssh://host${source}`
                : (await serve(this, source, { ranges: remote === 'http with ranges' })).address;
          const { plans } = await copy(dir, 'from', address, ['a']);
          presentChunks = plans[0]!.presentChunks;
        }
        assert.equal(presentChunks, 50);
        await requireEqual(here, there, snapshot);
        await requireSound(here);
        if (remote !== 'a directory' && remote !== 'ssh') return;
        // And to another one, which this end writes to.
        const { store: third, dir: target } = storeWith(this, other);
        await save(third, { other: RAM.subarray(0, 7 * PAGE_BYTES) });
        const address = remote === 'ssh' ? `ssh://host${target}` : target;
        const { plans } = await copy(source, 'to', address, ['a']);
        assert.equal(plans[0]!.presentChunks, 7);
        await requireEqual(third, there, snapshot);
        await requireSound(third);
      });
  }

  it('is copied from packs of both digests, whose chunks are sent together', async function () {
    const { store, dir } = storeWith(this, SHA256);
    const first = await save(store, { 'ram@0x0': noise(1, 21) });
    store.close();
    const { store: there } = storeWith(this, BLAKE3, dir);
    const contents = { 'ram@0x0': Buffer.concat([noise(1, 21), noise(2, 21)]) };
    const { id } = await save(there, contents, { parent: first.id, tag: 'both' });
    assert.deepEqual(idsIn(dir), [SHA256, BLAKE3]);
    const { store: here, dir: target } = storeWith(this, BLAKE3);
    const { results } = await copy(target, 'from', dir, ['both']);
    assert.equal(results[0]!.sentChunks, 42);
    assert.deepEqual(await load(here, id), contents);
    await requireSound(here);
  });

  it('heals only by the right bytes where fingerprints collide and IDs differ', async function () {
    this.timeout(120_000);
    await fc.assert(
      fc.asyncProperty(fc.nat(1000), fc.constantFrom(...PAIRS), async (seed, [id, other]) => {
        const bits = 2;
        const pages = noise(seed, 20);
        const { store, dir } = storeWith(this, id, undefined, bits);
        const { id: snapshot } = await save(store, { 'ram@0x0': pages });
        store.close();
        flipBit(join(dir, 'packs', packsOf(dir)[0]!), 5000 + (seed % 1000));
        const { store: later } = storeWith(this, other, dir, bits);
        // Collides with all of them, and has half of them.
        await save(later, {
          disk: Buffer.concat([noise(seed + 5000, 30), pages.subarray(0, 8 * PAGE_BYTES)]),
        });
        later.close();
        const { lost, healedChunks } = await Store.repair(dir, undefined, { fingerprintBits: bits });
        assert.equal(healedChunks, 8);
        assert.deepEqual(
          lost.map(({ fromBytes, toBytes }) => [fromBytes / PAGE_BYTES, toBytes / PAGE_BYTES]),
          [[8, 16]],
        );
        const { store: last } = storeWith(this, other, dir, bits);
        await save(last, { again: pages });
        last.close();
        assert.deepEqual((await Store.repair(dir, undefined, { fingerprintBits: bits })).lost, []);
        const { store: whole } = storeWith(this, other, dir, bits);
        assert.deepEqual(await load(whole, snapshot), { 'ram@0x0': pages });
        whole.close();
      }),
      { numRuns: 8 },
    );
  });

  it('is refused as a newer format where a pack has an unknown ID, and repair changes nothing', async function () {
    const { store, dir } = storeWith(this, BLAKE3);
    const { id } = await save(store, { disk: RAM }, { tag: 'a' });
    const [pack] = packsOf(dir) as [string];
    reseal(join(dir, 'packs', pack), (footer) => ({ ...footer, digest: DIGESTS.length }));
    const newer = {
      code: 'NEWER_FORMAT',
      message: `packs/${pack}: its digests have ID ${DIGESTS.length}, which this livesnap does not know`,
      hint: 'Update livesnap on this host.',
    };
    await assert.rejects(load(store, id), newer);
    for (const readData of [false, true]) {
      const { problems } = await store.check({ readData });
      assert.ok(problems.length > 0 && problems.every(({ snapshots }) => snapshots.includes(id)));
      assert.ok(problems.some(({ message }) => message === newer.message));
    }
    const { code, hint } = newer;
    const remote = { code, hint, message: `remote: ${newer.message}` };
    await assert.rejects(copy(dir, 'to', join(scratchDir(this), 'there'), ['a']), newer);
    await assert.rejects(copy(join(scratchDir(this), 'here'), 'from', dir, ['a']), remote);
    const { address } = await serve(this, dir);
    await assert.rejects(copy(join(scratchDir(this), 'here'), 'from', address, ['a']), remote);
    const { reader } = openRegion(this, dir, id, 'disk');
    assert.equal(readRegion(reader, 0, Buffer.alloc(PAGE_BYTES)), constants.errno.EOPNOTSUPP);
    assert.equal(regionReaderError(reader)!.file, `packs/${pack}`);
    store.close();
    const before = filesOf(dir);
    await assert.rejects(Store.repair(dir), newer);
    assert.deepEqual(filesOf(dir), before);
  });
});

/** A pack of generation 0 as generation 1. */
function asNextGeneration(path: string): Buffer {
  const bytes = readFileSync(path);
  const pack = parsePackName(basename(path))!;
  const footer = decodeFooter(pageOps, bytes.subarray(-FOOTER_BYTES), pack, bytes.length, path);
  bytes.set(encodePackHeader(pageOps, { ...pack, generation: 1 }, footer.digest));
  bytes.set(encodeFooter(pageOps, { ...footer, generation: 1 }), bytes.length - FOOTER_BYTES);
  return bytes;
}
