/**
 * A session: one client and one server copy snapshots over a channel (docs/copy.md). The client asks for one snapshot
 * after another. Either side can be the source. Within one machine both run in this process.
 */
import { LivesnapError } from '../../errors.js';
import { SNAPSHOT_ID, storeError } from '../disk/layout.js';
import type { SnapshotSummary } from '../types.js';
import { type Channel, localChannels } from './channel.js';
import type { CopyResult, OnDone, ReceiveOptions, SendOptions } from './copy-result.js';
import {
  decodeRequest,
  encodeError,
  encodeHello,
  encodeRequest,
  MessageType,
  requireHello,
  type SessionRequest,
} from './protocol.js';
import { receiveList, sendList } from './snapshot-list.js';

/** A store, as one end of a copy. */
export interface CopyEnd {
  readonly dir: string;
  /** All snapshots. */
  list(): readonly SnapshotSummary[] | Promise<readonly SnapshotSummary[]>;
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

/** Chooses among all snapshots of the server. */
export type ChooseRefs = (all: readonly SnapshotSummary[]) => readonly string[];

/** What is copied: the snapshots named as at the source, or chosen from a list that the server sends. */
export type Refs = readonly string[] | ChooseRefs;

/** Asks for the list of the server's snapshots. Errors: REMOTE_FAILED. */
async function requestList(channel: Channel): Promise<SnapshotSummary[]> {
  await sendRequest(channel, { verb: 'list' });
  try {
    return await receiveList(channel);
  } catch (error) {
    if (!(error instanceof LivesnapError) || !error.message.includes('invalid request')) throw error;
    throw new LivesnapError('REMOTE_FAILED', 'the livesnap of the remote is too old to list its snapshots', {
      hint: 'Name the snapshots, or use the same livesnap version at both ends.',
      cause: error,
    });
  }
}

export interface SessionOptions extends SendOptions {
  readonly onDone?: OnDone | undefined;
  /** Closes the connection when it is aborted. */
  readonly signal?: AbortSignal | undefined;
}

/** The client: copies the snapshots `refs` between `end` and the store of the server. */
export async function requestCopies(
  channel: Channel,
  end: CopyEnd,
  direction: 'to' | 'from',
  refs: Refs,
  { onDone = () => {}, signal, ...options }: SessionOptions,
): Promise<CopyResult[]> {
  const close = (): void => channel.close();
  signal?.addEventListener('abort', close);
  try {
    signal?.throwIfAborted();
    await exchangeHello(channel);
    const results: CopyResult[] = [];
    const named = typeof refs === 'function' ? refs(await requestList(channel)) : refs;
    for (const ref of named) {
      await sendRequest(channel, direction === 'to' ? { verb: 'receive' } : { verb: 'send', ref });
      const result =
        direction === 'to'
          ? await end.sendCopy(channel, ref, options)
          : await end.receiveCopy(channel, { ...options, id: SNAPSHOT_ID.test(ref) ? ref : null });
      results.push(result);
      onDone(result);
    }
    await sendRequest(channel, { verb: 'end' });
    return results;
  } catch (error) {
    const known = storeError(end.dir, error);
    await reportError(channel, known);
    throw known;
  } finally {
    signal?.removeEventListener('abort', close);
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
      if (request.verb === 'list') {
        await sendList(channel, await end.list());
        continue;
      }
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
  refs: Refs,
  options: Omit<SessionOptions, 'compress'>,
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
