/**
 * A session: one client and one server copy snapshots over a channel (docs/copy.md). The client asks for one snapshot
 * after another. Either side can be the source. Within one machine both run in this process.
 */
import { SNAPSHOT_ID, storeError } from '../disk/layout.js';
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

/** A store, as one end of a copy. */
export interface CopyEnd {
  readonly dir: string;
  sendCopy(channel: Channel, ref: string, options: SendOptions): Promise<CopyResult>;
  receiveCopy(channel: Channel, options: ReceiveOptions): Promise<CopyResult>;
}

async function exchangeHello(channel: Channel): Promise<void> {
  await channel.send(MessageType.hello, encodeHello());
  requireHello((await channel.receive(MessageType.hello)).bytes);
}

const sendRequest = (channel: Channel, request: SessionRequest): Promise<void> =>
  channel.send(MessageType.request, encodeRequest(request));

/** Reports a failure of this end to the peer, if the connection still works. */
const reportError = (channel: Channel, error: unknown): Promise<void> =>
  channel.send(MessageType.error, encodeError(error)).catch(() => {});

/** The client: copies the snapshots `refs` between `end` and the store of the server. */
export async function requestCopies(
  channel: Channel,
  end: CopyEnd,
  direction: 'to' | 'from',
  refs: readonly string[],
  options: SendOptions,
): Promise<CopyResult[]> {
  try {
    await exchangeHello(channel);
    const results: CopyResult[] = [];
    for (const ref of refs) {
      await sendRequest(channel, direction === 'to' ? { verb: 'receive' } : { verb: 'send', ref });
      results.push(
        direction === 'to'
          ? await end.sendCopy(channel, ref, options)
          : await end.receiveCopy(channel, { ...options, id: SNAPSHOT_ID.test(ref) ? ref : null }),
      );
    }
    await sendRequest(channel, { verb: 'end' });
    return results;
  } catch (error) {
    const known = storeError(end.dir, error);
    await reportError(channel, known);
    throw known;
  } finally {
    channel.close();
  }
}

/** The server: answers requests until the client ends the session. `openEnd` is called for each request. */
export async function serveCopies(
  channel: Channel,
  openEnd: (write: boolean) => CopyEnd,
  { compress }: { compress: boolean },
): Promise<void> {
  try {
    await exchangeHello(channel);
    for (;;) {
      const request = decodeRequest((await channel.receive(MessageType.request)).bytes);
      if (request.verb === 'end') return;
      const end = openEnd(request.verb === 'receive');
      const silent = { onPlan: () => {}, progress: () => {} };
      if (request.verb === 'receive') await end.receiveCopy(channel, silent);
      else await end.sendCopy(channel, request.ref, { compress, ...silent });
    }
  } catch (error) {
    await reportError(channel, error);
    throw error;
  } finally {
    channel.close();
  }
}

/** Copies between two stores of this process. When it settles, both ends have finished. */
export async function copyInProcess(
  here: CopyEnd,
  there: CopyEnd,
  direction: 'to' | 'from',
  refs: readonly string[],
  options: Omit<SendOptions, 'compress'>,
): Promise<CopyResult[]> {
  const [client, server] = localChannels();
  const served = serveCopies(server, () => there, { compress: false });
  served.catch(() => {}); // the client receives the error and throws it
  try {
    const results = await requestCopies(client, here, direction, refs, { ...options, compress: false });
    await served;
    return results;
  } finally {
    client.close();
    await Promise.allSettled([served]);
  }
}
