/** Messages over streams, and what a sender learns when the peer has closed. */
import assert from 'node:assert/strict';
import { PassThrough, type Readable } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type Channel, localChannels, StreamChannel } from '../../../../src/store/copy/channel.js';
import { MessageType } from '../../../../src/store/copy/protocol.js';

const { offer, pages, have, error } = MessageType;
const page = Buffer.alloc(4096);
const full = Buffer.from(JSON.stringify({ code: 'NO_SPACE', message: 'the disk is full', hint: null }));
const isFull = { code: 'NO_SPACE', message: 'remote: the disk is full' };
const isClosed = { code: 'REMOTE_FAILED', message: /closed the connection$/ };

/** Two connected ends over streams. */
function streamChannels(): [StreamChannel, StreamChannel] {
  const there = new PassThrough();
  const back = new PassThrough();
  return [new StreamChannel(back, there), new StreamChannel(there, back)];
}

/** Sends until it fails; gives up after more messages than any buffer holds. */
async function sendOn(channel: Channel): Promise<void> {
  for (let i = 0; i < 100; i++) await channel.send(pages, page);
}

describe('sending to a closed peer', () => {
  for (const [kind, channels] of [
    ['within the process', localChannels],
    ['over streams', streamChannels],
  ] as const) {
    it(`fails with the error that the peer sent, after any other message (${kind})`, async () => {
      const [mine, theirs] = channels();
      await theirs.send(have, Uint8Array.of(0));
      await theirs.send(error, full);
      theirs.close();
      await assert.rejects(sendOn(mine), isFull);
    });

    it(`fails with the error of the peer while it waits for room (${kind})`, async () => {
      const [mine, theirs] = channels();
      const sending = assert.rejects(sendOn(mine), isFull);
      await new Promise((resolve) => setTimeout(resolve, 20));
      await theirs.send(error, full);
      theirs.close();
      await sending;
    });

    it(`fails when the peer sent no error (${kind})`, async () => {
      const [mine, theirs] = channels();
      theirs.close();
      await assert.rejects(sendOn(mine), isClosed);
    });
  }

  it('waits for an error of the peer only once', async () => {
    let waits = 0;
    const silent = {
      [Symbol.asyncIterator]: () => ({
        next() {
          waits++;
          return new Promise(() => {});
        },
      }),
    };
    const output = new PassThrough();
    const channel = new StreamChannel(silent as unknown as Readable, output);
    output.destroy();
    for (let i = 0; i < 3; i++) await assert.rejects(channel.send(pages, page), isClosed);
    assert.equal(waits, 1);
  });
});

describe('a channel over streams', () => {
  /** A message with its header. */
  const framed = (type: MessageType, bytes: Buffer): Buffer => {
    const header = Buffer.alloc(8);
    header.writeUInt32LE(bytes.length);
    header[4] = type;
    return Buffer.concat([header, bytes]);
  };
  const content = (length: number): Buffer => Buffer.from(Array.from({ length }, (_, i) => (i * 7) & 255));
  const inputOf = (pieces: AsyncIterable<Buffer>): Readable => pieces as unknown as Readable;

  it('does not keep the pieces in which a message arrives', async () => {
    const bytes = content(5000);
    let kept = Number.NaN;
    async function* byteByByte(): AsyncGenerator<Buffer> {
      const pieces: WeakRef<ArrayBufferLike>[] = [];
      const whole = framed(pages, bytes);
      for (const [i, byte] of whole.entries()) {
        if (i === whole.length - 1) kept = await countReachable(pieces);
        // Each piece has a buffer of its own, as pieces from a socket have.
        const piece = Buffer.from(new ArrayBuffer(4096), 0, 1);
        piece[0] = byte;
        pieces.push(new WeakRef(piece.buffer));
        yield piece;
      }
    }
    const channel = new StreamChannel(inputOf(byteByByte()), new PassThrough());
    assert.deepEqual((await channel.receive(pages)).bytes, bytes);
    assert.ok(kept < 100, `${kept} of 5000 pieces are kept`);
  });

  it('allocates by the bytes that have arrived, not by the length in the header', async () => {
    const whole = framed(offer, content(1000));
    whole.writeUInt32LE(60 << 20);
    let allocated = Number.NaN;
    async function* cut(): AsyncGenerator<Buffer> {
      const before = process.memoryUsage().arrayBuffers;
      for (const byte of whole) yield Buffer.of(byte);
      allocated = process.memoryUsage().arrayBuffers - before;
    }
    const channel = new StreamChannel(inputOf(cut()), new PassThrough());
    await assert.rejects(channel.receive(offer), { code: 'REMOTE_FAILED' });
    assert.ok(allocated < 1 << 20, `${allocated} bytes`);
  });

  it('refuses a message above the limit of its type before reading it', async () => {
    const { hello, request, have, chunks, need, blocks, layout, placed, done, error } = MessageType;
    for (const [type, bytes] of [
      [hello, 13],
      [request, (1 << 20) + 1],
      [have, 2],
      [chunks, 4 + 40 * 4096 + 1],
      [need, (1 << 23) + 1],
      [pages, 4 + 16 * 4100 + 1],
      [blocks, 32 * (64 + 2048) + 1],
      [layout, 4 + 8 * 16_384 + 1],
      [placed, 1],
      [done, 1 + 1024 / 8 + 1],
      [error, (64 << 10) + 1],
    ] as const) {
      const header = framed(type, Buffer.alloc(0));
      header.writeUInt32LE(bytes);
      async function* headerAlone(): AsyncGenerator<Buffer> {
        yield header;
        assert.fail('the body is read');
      }
      const channel = new StreamChannel(inputOf(headerAlone()), new PassThrough());
      await assert.rejects(
        channel.receive(type),
        { code: 'REMOTE_FAILED', message: /the limit is/ },
        `${type}`,
      );
      const [mine, theirs] = localChannels();
      await theirs.send(type, Buffer.alloc(bytes));
      await assert.rejects(mine.receive(type), { code: 'REMOTE_FAILED', message: /the limit is/ }, `${type}`);
    }
  });

  it('shortens a long error of the peer', async () => {
    const [mine, theirs] = localChannels();
    const long = 'x'.repeat(20_000);
    await theirs.send(error, Buffer.from(JSON.stringify({ code: 'DAMAGED', message: long, hint: long })));
    await assert.rejects(mine.receive(pages), (failure: { code: string; message: string; hint: string }) => {
      assert.equal(failure.code, 'DAMAGED');
      assert.ok(failure.message.length < 1100 && failure.hint.length < 1100);
      return true;
    });
  });

  it('gives the same messages however the bytes are split', async () => {
    const sizes = [0, 1, 7, 8, 9, 4096, 65_536, 65_537, 300_000];
    const whole = Buffer.concat(sizes.map((size) => framed(offer, content(size))));
    for (const step of [1, 7, 8, 9, 1000, 65_536, 65_544, whole.length - 1, whole.length]) {
      async function* cut(): AsyncGenerator<Buffer> {
        for (let at = 0; at < whole.length; at += step) yield whole.subarray(at, at + step);
      }
      const channel = new StreamChannel(inputOf(cut()), new PassThrough());
      for (const size of sizes) assert.deepEqual((await channel.receive(offer)).bytes, content(size));
      await assert.rejects(channel.receive(offer), {
        code: 'REMOTE_FAILED',
        message: /before the copy ended/,
      });
    }
  });
});

/** How many have not been collected. */
async function countReachable(refs: readonly WeakRef<object>[]): Promise<number> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  await turn(); // a new WeakRef keeps its target until the next turn
  collect();
  return refs.filter((ref) => ref.deref() !== undefined).length;
}
