/** What a sender learns when the other end has gone: what that one failed with, if it has said so. */
import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import {
  type Channel,
  localChannels,
  MessageType,
  StreamChannel,
} from '../../../../src/store/copy/channel.js';

const { pages, have, error } = MessageType;
const page = Buffer.alloc(4096);
const full = Buffer.from(JSON.stringify({ code: 'NO_SPACE', message: 'the disk is full', hint: null }));
const isFull = { code: 'NO_SPACE', message: 'on the other side: the disk is full' };
const hasGone = { code: 'REMOTE_FAILED', message: /has gone/ };

/** Two ends on streams. */
function streamChannels(): [StreamChannel, StreamChannel] {
  const there = new PassThrough();
  const back = new PassThrough();
  return [new StreamChannel(back, there), new StreamChannel(there, back)];
}

/** Sends until it fails, or has for so long not that it never will. */
async function sendOn(channel: Channel): Promise<void> {
  for (let i = 0; i < 100; i++) await channel.send(pages, page);
}

describe('an end of a copy that sends to one that has gone', () => {
  for (const [kind, channels] of [
    ['within the process', localChannels],
    ['over streams', streamChannels],
  ] as const) {
    it(`${kind} fails with what that one failed with, whatever that one said before`, async () => {
      const [mine, theirs] = channels();
      await theirs.send(have, Uint8Array.of(0));
      await theirs.send(error, full);
      theirs.close();
      await assert.rejects(sendOn(mine), isFull);
    });

    it(`${kind} fails with that where it waits for room, too`, async () => {
      const [mine, theirs] = channels();
      const sending = assert.rejects(sendOn(mine), isFull);
      await new Promise((resolve) => setTimeout(resolve, 20));
      await theirs.send(error, full);
      theirs.close();
      await sending;
    });

    it(`${kind} fails where that one said nothing`, async () => {
      const [mine, theirs] = channels();
      theirs.close();
      await assert.rejects(sendOn(mine), hasGone);
    });
  }

  it('does not wait long for what it may say', async function () {
    this.timeout(10_000);
    const output = new PassThrough();
    const channel = new StreamChannel(new PassThrough(), output);
    output.destroy();
    await assert.rejects(channel.send(pages, page), hasGone);
    const begun = Date.now();
    await assert.rejects(channel.send(pages, page), hasGone);
    assert.ok(Date.now() - begun < 1000, 'and waits once only');
    channel.close();
  });
});
