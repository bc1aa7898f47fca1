import assert from 'node:assert/strict';
import { PassThrough, Writable } from 'node:stream';
import { ConsoleHub, RING_BYTES } from '../../../src/machine/console-hub.js';

/** A viewer that reads only when told to, and until then holds on to what it was given. */
class Stalled extends Writable {
  readonly got: Buffer[] = [];
  #next: (() => void) | null = null;
  open = false;
  constructor() {
    super({ highWaterMark: 1024 });
  }
  override _write(bytes: Buffer, _encoding: string, done: () => void): void {
    this.got.push(bytes);
    if (this.open) done();
    else this.#next = done;
  }
  release(): void {
    this.open = true;
    this.#next?.();
  }
  get text(): string {
    return Buffer.concat(this.got).toString('latin1');
  }
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

describe('the console hub', () => {
  it('shows a viewer as much past output as it asks for, and everything after', () => {
    const hub = new ConsoleHub();
    hub.push(Buffer.from('before'));
    const all = new PassThrough();
    const some = new PassThrough();
    const none = new PassThrough();
    hub.join(all, 100, () => {});
    hub.join(some, 3, () => {});
    hub.join(none, 0, () => {});
    hub.push(Buffer.from(' after'));
    assert.equal(all.read().toString(), 'before after');
    assert.equal(some.read().toString(), 'ore after');
    assert.equal(none.read().toString(), ' after');
  });

  it('knows whether the next byte starts a line', () => {
    const hub = new ConsoleHub();
    assert.equal(hub.atLineStart, true);
    hub.push(Buffer.from('a'));
    assert.equal(hub.atLineStart, false);
    hub.push(Buffer.from('b\r\n'));
    assert.equal(hub.atLineStart, true);
    hub.push(Buffer.alloc(RING_BYTES - 4, '\n'));
    assert.equal(hub.atLineStart, true);
  });

  it('keeps bytes unchanged across the end of the ring', () => {
    const hub = new ConsoleHub();
    hub.push(new Uint8Array(RING_BYTES - 100));
    const out = new PassThrough({ highWaterMark: 1 << 22 });
    hub.join(out, 0, () => {});
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    hub.push(bytes);
    assert.deepEqual(out.read(), bytes);
    const late = new PassThrough();
    hub.join(late, 256, () => {});
    assert.deepEqual(Buffer.concat([...readAll(late)]), bytes);
  });

  it('tells a slow viewer how much it missed, and skips nothing else', async () => {
    const hub = new ConsoleHub();
    const slow = new Stalled();
    hub.join(slow, 0, () => {});
    hub.push(Buffer.from('x'.repeat(2000)));
    hub.push(Buffer.alloc(RING_BYTES, 'y'));
    hub.push(Buffer.from('END'));
    slow.release();
    await settle();
    assert.match(slow.text, /^x{2000}\r\n\[livesnap: 3 bytes skipped: viewer too slow\]\r\ny+END$/);
    assert.equal(slow.text.match(/y/g)!.length - 1, RING_BYTES - 3);
  });

  it('keeps no more for a stalled viewer than the ring', () => {
    const hub = new ConsoleHub();
    const slow = new Stalled();
    hub.join(slow, 0, () => {});
    for (let i = 0; i < 40; i++) hub.push(Buffer.alloc(RING_BYTES / 4));
    assert.ok(slow.writableLength <= 300 * 1024, `${slow.writableLength} bytes wait in the stream`);
  });

  it('ends for a viewer only after it received everything', async () => {
    const hub = new ConsoleHub();
    const slow = new Stalled();
    let finished = 0;
    hub.join(slow, 0, () => finished++);
    hub.push(Buffer.alloc(200 * 1024, 'z'));
    hub.end();
    assert.equal(finished, 0);
    slow.release();
    await settle();
    assert.equal(finished, 1);
    assert.equal(slow.text.length, 200 * 1024);
    assert.equal(hub.viewers, 0);
  });

  it('shows the past to a viewer that joins after the end', () => {
    const hub = new ConsoleHub();
    hub.push(Buffer.from('past'));
    hub.end();
    const out = new PassThrough();
    let finished = false;
    hub.join(out, 100, () => {
      finished = true;
    });
    assert.ok(finished);
    assert.equal(out.read().toString(), 'past');
  });

  it('writes nothing to a viewer that has left', () => {
    const hub = new ConsoleHub();
    const out = new PassThrough();
    const leave = hub.join(out, 0, () => {});
    leave();
    hub.push(Buffer.from('late'));
    assert.equal(out.read(), null);
    assert.equal(hub.viewers, 0);
  });

  it('copies the end of its output, across the end of the ring too', () => {
    const hub = new ConsoleHub();
    assert.equal(hub.lastBytes(10).length, 0);
    hub.push(Buffer.from('abc'));
    assert.equal(Buffer.from(hub.lastBytes(2)).toString(), 'bc');
    hub.push(Buffer.alloc(RING_BYTES - 5, '.'));
    hub.push(Buffer.from('defgh'));
    const kept = Buffer.from(hub.lastBytes(RING_BYTES * 2));
    assert.equal(kept.length, RING_BYTES);
    assert.equal(kept.subarray(-6).toString(), '.defgh');
    assert.equal(Buffer.from(hub.lastBytes(4)).toString(), 'efgh');
  });
});

function* readAll(stream: PassThrough): Generator<Buffer> {
  for (let part = stream.read(); part !== null; part = stream.read()) yield part;
}
