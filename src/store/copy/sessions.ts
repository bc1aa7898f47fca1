/**
 * Conversations between two stores (docs/copy.md): one side asks, snapshot after snapshot, the other serves; either may
 * be the source. Within one machine both sides are of this process.
 */
import { LivesnapError } from '../../errors.js';
import { SNAPSHOT_ID, storeError } from '../layout.js';
import { type Channel, MessageType, readable, remoteFailed } from './channel.js';
import type { CopyResult, ReceiveOptions, SendOptions } from './copy-result.js';

export const PROTOCOL_VERSION = 1;
const GREETING = 'LIVESNAP';

/** What a store can do in a copy: a {@link Store} of this machine. */
export interface CopyEnd {
  readonly dir: string;
  sendCopy(channel: Channel, ref: string, options: SendOptions): Promise<CopyResult>;
  receiveCopy(channel: Channel, options: ReceiveOptions): Promise<CopyResult>;
}

interface Request {
  readonly verb: 'send' | 'receive' | 'end';
  readonly ref?: string;
}

async function greet(channel: Channel): Promise<void> {
  const greeting = Buffer.alloc(12);
  greeting.write(GREETING, 'latin1');
  greeting.writeUInt32LE(PROTOCOL_VERSION, 8);
  await channel.send(MessageType.hello, greeting);
  const { bytes } = await channel.receive(MessageType.hello);
  if (bytes.length !== 12 || bytes.toString('latin1', 0, 8) !== GREETING)
    throw remoteFailed('does not speak as a livesnap does');
  const version = bytes.readUInt32LE(8);
  if (version !== PROTOCOL_VERSION)
    throw new LivesnapError(
      'REMOTE_FAILED',
      `the livesnap on the other side copies by version ${version}, this one by version ${PROTOCOL_VERSION}`,
      { hint: 'Use the same livesnap on both sides.' },
    );
}

const request = (channel: Channel, what: Request): Promise<void> =>
  channel.send(MessageType.request, Buffer.from(JSON.stringify(what)));

/** Tells the other side what went wrong here, if it still listens. */
async function tell(channel: Channel, error: unknown): Promise<void> {
  const known =
    error instanceof LivesnapError
      ? error
      : new LivesnapError('SYSTEM', `internal error: ${(error as Error)?.message ?? error}`);
  const { code, message, hint } = known.toJSON();
  const told = { code, message: readable(message), hint: hint === null ? null : readable(hint) };
  await channel.send(MessageType.error, Buffer.from(JSON.stringify(told))).catch(() => {});
}

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
      await request(channel, direction === 'to' ? { verb: 'receive' } : { verb: 'send', ref });
      results.push(
        direction === 'to'
          ? await end.sendCopy(channel, ref, options)
          : await end.receiveCopy(channel, { ...options, id: SNAPSHOT_ID.test(ref) ? ref : null }),
      );
    }
    await request(channel, { verb: 'end' });
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
      const { verb, ref } = decodeRequest((await channel.receive(MessageType.request)).bytes);
      if (verb === 'end') return;
      const end = openEnd(verb === 'receive');
      const silent = { onPlan: () => {}, progress: () => {} };
      if (verb === 'receive') await end.receiveCopy(channel, silent);
      else await end.sendCopy(channel, ref ?? '', { compress, ...silent });
    }
  } catch (error) {
    await tell(channel, error);
    throw error;
  } finally {
    channel.close();
  }
}

function decodeRequest(bytes: Buffer): Request {
  let asked: Partial<Request> | null = null;
  try {
    asked = JSON.parse(bytes.toString('utf8'));
  } catch {
    // not a request
  }
  const { verb, ref } = asked ?? {};
  if (
    (verb !== 'send' && verb !== 'receive' && verb !== 'end') ||
    (verb === 'send' && typeof ref !== 'string')
  )
    throw remoteFailed('asks for something that there is not');
  return { verb, ...(typeof ref === 'string' ? { ref } : {}) };
}
