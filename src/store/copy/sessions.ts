/**
 * Conversations between two stores (docs/copy.md): one side asks, snapshot after snapshot, the other serves; either may
 * be the source. Within one machine both sides are of this process.
 */
import { SNAPSHOT_ID, storeError } from '../layout.js';
import { type Channel, localChannels } from './channel.js';
import type { CopyResult, ReceiveOptions, SendOptions } from './copy-result.js';
import {
  decodeRequest,
  encodeError,
  encodeHello,
  encodeRequest,
  MessageType,
  requireHello,
  type SessionRequest,
} from './protocol.js';

/** What a store can do in a copy. */
export interface CopyEnd {
  readonly dir: string;
  sendCopy(channel: Channel, ref: string, options: SendOptions): Promise<CopyResult>;
  receiveCopy(channel: Channel, options: ReceiveOptions): Promise<CopyResult>;
}

async function greet(channel: Channel): Promise<void> {
  await channel.send(MessageType.hello, encodeHello());
  requireHello((await channel.receive(MessageType.hello)).bytes);
}

const ask = (channel: Channel, request: SessionRequest): Promise<void> =>
  channel.send(MessageType.request, encodeRequest(request));

/** Tells the other side what went wrong here, if it still listens. */
const tell = (channel: Channel, error: unknown): Promise<void> =>
  channel.send(MessageType.error, encodeError(error)).catch(() => {});

/** Asks: copies the snapshots that `refs` name from or to the store at the other end. */
export async function askForCopies(
  channel: Channel,
  end: CopyEnd,
  direction: 'to' | 'from',
  refs: readonly string[],
  options: SendOptions,
): Promise<CopyResult[]> {
  try {
    await greet(channel);
    const results: CopyResult[] = [];
    for (const ref of refs) {
      await ask(channel, direction === 'to' ? { verb: 'receive' } : { verb: 'send', ref });
      results.push(
        direction === 'to'
          ? await end.sendCopy(channel, ref, options)
          : await end.receiveCopy(channel, { ...options, id: SNAPSHOT_ID.test(ref) ? ref : null }),
      );
    }
    await ask(channel, { verb: 'end' });
    return results;
  } catch (error) {
    const known = storeError(end.dir, error);
    await tell(channel, known);
    throw known;
  } finally {
    channel.close();
  }
}

/** Serves until the other side has no more requests. `openEnd` is called when the first comes. */
export async function serveCopies(
  channel: Channel,
  openEnd: (write: boolean) => CopyEnd,
  { compress }: { compress: boolean },
): Promise<void> {
  try {
    await greet(channel);
    for (;;) {
      const request = decodeRequest((await channel.receive(MessageType.request)).bytes);
      if (request.verb === 'end') return;
      const end = openEnd(request.verb === 'receive');
      const silent = { onPlan: () => {}, progress: () => {} };
      if (request.verb === 'receive') await end.receiveCopy(channel, silent);
      else await end.sendCopy(channel, request.ref, { compress, ...silent });
    }
  } catch (error) {
    await tell(channel, error);
    throw error;
  } finally {
    channel.close();
  }
}

/** Copies between two stores of this process. When it settles, neither is at work any more. */
export async function copyWithin(
  here: CopyEnd,
  there: CopyEnd,
  direction: 'to' | 'from',
  refs: readonly string[],
  options: Omit<SendOptions, 'compress'>,
): Promise<CopyResult[]> {
  const [asking, serving] = localChannels();
  const served = serveCopies(serving, () => there, { compress: false });
  served.catch(() => {}); // the asking side is told, and throws
  try {
    const results = await askForCopies(asking, here, direction, refs, { ...options, compress: false });
    await served;
    return results;
  } finally {
    asking.close();
    await Promise.allSettled([served]);
  }
}
