/** A pack of which a newer livesnap has compressed a frame by a codec that this one does not know. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pageOps } from '../../src/native/pages.js';
import { Store } from '../../src/store/store.js';
import { filesOf } from '../fixtures/golden-stores.js';
import { dropScratch, load, newStore, noise, save } from './scratch.js';

/**
 * Gives the first or the last frame of a pack another codec, and checksums that are right (docs/format.md, "Packs").
 * Returns the offset of the frame.
 */
function setCodec(path: string, number: number, codec: number, which: 'first' | 'last' = 'first'): number {
  const bytes = readFileSync(path);
  const footer = bytes.length - 64;
  const trailer = Number(bytes.readBigUInt64LE(footer + 32));
  const index = which === 'first' ? 0 : bytes.readUInt32LE(footer + 20) - 1;
  const entry = trailer + index * 16;
  const frame = bytes.readUInt32LE(entry);
  const frameEnd = frame + 16 + 2 * bytes.readUInt16LE(frame + 12) + bytes.readUInt32LE(frame + 8);
  const tables = bytes.readUInt32LE(footer + 20) * 16 + bytes.readUInt32LE(footer + 24) * 4;
  for (const flags of [frame + 14, entry + 14])
    bytes.writeUInt16LE((codec << 8) | (bytes.readUInt16LE(flags) & 0xfe), flags);
  pageOps.checksum(bytes, frame + 8, frameEnd - frame - 8, number, index, bytes.subarray(frame));
  pageOps.checksum(bytes, trailer, tables, 0, 0, bytes.subarray(footer + 40));
  pageOps.checksum(bytes, footer, 56, 0, 0, bytes.subarray(footer + 56));
  writeFileSync(path, bytes);
  return frame;
}

describe('a store with a frame of an unknown codec', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('fails every read of the frame, naming the codec, and repair changes nothing', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': noise(1, 40) });
    const other = await save(store, { 'ram@0x0': noise(2, 40) });
    const [name] = readdirSync(join(dir, 'packs')).sort() as [string];
    setCodec(join(dir, 'packs', name), Number.parseInt(name, 16), 7);
    const newer = {
      code: 'NEWER_FORMAT',
      message: `packs/${name} at offset 32: the frame is compressed by codec 7, which this livesnap does not know`,
    };
    await assert.rejects(load(store, id), newer);
    const { problems } = await store.check({ readData: true });
    assert.deepEqual(
      problems.map(({ message, snapshots }) => ({ message, snapshots })),
      [{ message: newer.message, snapshots: [id] }],
    );
    assert.deepEqual(await load(store, other.id), { 'ram@0x0': noise(2, 40) });
    store.close();
    const before = filesOf(dir);
    await assert.rejects(Store.repair(dir), newer);
    assert.deepEqual(filesOf(dir), before);
  });

  it('is reported by a check that reads no data if the frame holds the manifest of a snapshot', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': noise(1, 40) });
    await save(store, { 'ram@0x0': noise(2, 40) });
    const [name] = readdirSync(join(dir, 'packs')).sort() as [string];
    const offset = setCodec(join(dir, 'packs', name), Number.parseInt(name, 16), 7, 'last');
    const { ok, problems } = await store.check({ readData: false });
    assert.equal(ok, false);
    assert.deepEqual(
      problems.map(({ message, snapshots }) => ({ message, snapshots })),
      [
        {
          message: `packs/${name} at offset ${offset}: the frame is compressed by codec 7, which this livesnap does not know`,
          snapshots: [id],
        },
      ],
    );
    store.close();
  });
});
