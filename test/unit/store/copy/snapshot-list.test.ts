import assert from 'node:assert/strict';
import type { Channel, Message } from '../../../../src/store/copy/channel.js';
import { MessageType, requireLength } from '../../../../src/store/copy/protocol.js';
import { receiveList, sendList } from '../../../../src/store/copy/snapshot-list.js';
import { summary } from '../../host/summaries.js';

/** A channel that gives these messages. */
const giving = (messages: Iterable<Message>): Channel => {
  const next = messages[Symbol.iterator]();
  return { send: async () => {}, receive: async () => next.next().value as Message, close: () => {} };
};

const listed: Message = { type: MessageType.listed, bytes: Buffer.alloc(0) };
const snapshots = (value: unknown): Message => ({
  type: MessageType.snapshots,
  bytes: Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)),
});

describe('the list of snapshots of a remote', () => {
  it('arrives as it was sent, in messages of bounded size', async () => {
    const all = Array.from({ length: 5000 }, (_, n) =>
      summary(n, new Date(n), {
        tags: [`t${n}`],
        labels: { course: 'Größe' },
        vm: n === 7 ? 'x'.repeat(900_000) : 'web',
      }),
    );
    const sent: Message[] = [];
    await sendList(
      {
        send: async (type, ...parts) => void sent.push({ type, bytes: Buffer.concat(parts) }),
        receive: () => assert.fail(),
        close: () => {},
      },
      all,
    );
    for (const { type, bytes } of sent) requireLength(type, bytes.length);
    assert.ok(sent.length > 3);
    assert.deepEqual(await receiveList(giving(sent)), all);
    assert.deepEqual(await receiveList(giving([listed])), []);
  });

  it('is refused if it is not valid, or too long', async () => {
    const one = summary(1, '2026-01-01');
    const wrong: unknown[] = [
      ...['', '{', one, [1], [{ ...one, id: '../x' }], [{ ...one, parent: 'x' }], [{ ...one, kind: 'vm' }]],
      ...[[{ ...one, createdAt: 'never' }], [{ ...one, storedBytes: -1 }], [{ ...one, labels: [] }]],
      ...[[{ ...one, tags: [1] }], [{ ...one, vm: 1 }]],
    ];
    for (const value of wrong)
      await assert.rejects(receiveList(giving([snapshots(value), listed])), {
        code: 'REMOTE_FAILED',
        message: /^the remote sent an invalid list of snapshots: /,
      });
    const endless = function* (): Generator<Message> {
      const long = snapshots(Array.from({ length: 2000 }, () => one));
      for (;;) yield long;
    };
    await assert.rejects(receiveList(giving(endless())), {
      message: 'the remote sent a list of more than 64 MiB',
    });
    assert.deepEqual(await receiveList(giving([snapshots([one, one]), listed])), [one]);
    assert.throws(() => requireLength(MessageType.snapshots, 4 << 20), { code: 'REMOTE_FAILED' });
  });
});
