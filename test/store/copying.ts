/** For the copy tests: copies between directories, comparisons of stores, channels that change or cut messages. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Duplex, PassThrough } from 'node:stream';
import { type Channel, StreamChannel } from '../../src/store/copy/channel.js';
import type { CopyPlan, CopyResult } from '../../src/store/copy/copy-result.js';
import type { MessageType } from '../../src/store/copy/protocol.js';
import { copySnapshots } from '../../src/store/remote/copy.js';
import type { Store } from '../../src/store/store.js';
import { load, mountSmall, noise, scratchDir, textPages } from './scratch.js';

export const silent = { onPlan: () => {}, progress: () => {} };

export async function copy(
  storeDir: string,
  direction: 'to' | 'from',
  remote: string,
  refs: string[],
  fingerprintBits = 64,
): Promise<{ results: CopyResult[]; plans: CopyPlan[] }> {
  const plans: CopyPlan[] = [];
  const results = await copySnapshots({
    ...{ storeDir, direction, remote, refs, fingerprintBits },
    ...{ onPlan: (plan) => void plans.push(plan), progress: () => {} },
  });
  return { results, plans };
}

/** The snapshot has the same contents, description and state in both stores. */
export async function requireEqual(a: Store, b: Store, ref: string): Promise<void> {
  assert.deepEqual(await load(a, ref), await load(b, ref));
  const [one, other] = [a.find(ref), b.find(ref)];
  for (const key of ['id', 'kind', 'vm', 'parent', 'createdAt', 'memoryBytes'] as const)
    assert.equal(one[key], other[key], key);
  const states = await Promise.all(
    [a, b].map(async (store) => {
      const snapshot = await store.openSnapshot(ref);
      snapshot.close();
      return Buffer.from(snapshot.metadata.state);
    }),
  );
  assert.deepEqual(states[0], states[1]);
}

/** A full check finds nothing. */
export async function requireSound(store: Store): Promise<void> {
  assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
}

export const RAM = Buffer.concat([noise(1, 300), Buffer.alloc(700 * 4096), textPages(2, 600)]);

/** An empty directory on a file system of its own. */
export function smallDisk(test: Mocha.Context, sizeBytes: number, name = 'small'): string {
  const dir = join(scratchDir(test), name);
  mkdirSync(dir);
  mountSmall(test, dir, sizeBytes);
  return dir;
}

/** An offer message; `value` may be anything. */
export const offerOf = (value: unknown, state: Uint8Array = Buffer.alloc(0)): Buffer =>
  jsonOffer(JSON.stringify(value), state);

export function jsonOffer(text: string, state: Uint8Array = Buffer.alloc(0)): Buffer {
  const json = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  return Buffer.concat([length, json, state]);
}

/** A channel that changes each message of one type as it arrives. */
export const changing = (
  channel: Channel,
  type: MessageType,
  change: (bytes: Buffer) => Buffer,
): Channel => ({
  send: (...message) => channel.send(...message),
  receive: async (...types) => {
    const message = await channel.receive(...types);
    return message.type === type ? { ...message, bytes: change(message.bytes) } : message;
  },
  close: () => channel.close(),
});

/** Two connected ends; the connection breaks after `cutAfter` bytes from the first to the second. */
export function cuttableChannels(cutAfter: number): [Channel, Channel] {
  const there = new PassThrough();
  const back = new PassThrough();
  let passed = 0;
  const cut = new Duplex({
    read() {},
    write(chunk: Buffer, _, done) {
      const part = chunk.subarray(0, Math.max(0, cutAfter - passed));
      passed += chunk.length;
      there.write(part);
      if (passed >= cutAfter) {
        there.end();
        back.end();
        back.destroy();
      }
      done(passed >= cutAfter ? new Error('cut') : null);
    },
  });
  cut.on('error', () => {});
  return [new StreamChannel(back, cut), new StreamChannel(there, back)];
}
