/**
 * The list of a store's snapshots, as it goes over a channel (docs/copy.md, "The protocol"). A client that copies all
 * snapshots of a server asks for it.
 *
 * Invariant: what the peer sent is checked, and its total size is bounded.
 */
import { labels } from '../../labels.js';
import {
  amount,
  type Check,
  integer,
  list,
  nullable,
  object,
  oneOf,
  optional,
  parse,
  text,
} from '../../schema.js';
import { SNAPSHOT_ID } from '../disk/layout.js';
import { time } from '../snapshot/description.js';
import type { SnapshotSummary } from '../types.js';
import type { Channel } from './channel.js';
import { MessageType, parseJson, protocolError } from './protocol.js';

/** Of the JSON of one message, unless a single snapshot has more. */
const MESSAGE_BYTES = 256 << 10;
/** Of the JSON of all messages: a hundred thousand snapshots with long names. */
const MAX_LIST_BYTES = 64 << 20;
const MAX_PER_MESSAGE = 1 << 16;
const MAX_TAGS_LISTED = 1 << 16;

/** A peer from before there were pauses sends none. */
type SentSummary = Omit<SnapshotSummary, 'pauseMs'> & { readonly pauseMs?: number | null | undefined };

/** A tag that looks like an ID, or that is none, does no harm here: it is only compared with filters. */
const summary: Check<SentSummary> = object(
  {
    id: text(SNAPSHOT_ID, 'a snapshot ID'),
    tags: list(text(), 0, MAX_TAGS_LISTED),
    kind: oneOf('machine', 'file', 'disk'),
    vm: nullable(text()),
    parent: nullable(text(SNAPSHOT_ID, 'a snapshot ID')),
    createdAt: time,
    memoryBytes: integer(),
    diskBytes: integer(),
    storedBytes: integer(),
    labels,
    pauseMs: optional(nullable(amount)),
  },
  { others: 'ignore' },
);

const summaries = list(summary, 0, MAX_PER_MESSAGE);

/** Sends all snapshots. */
export async function sendList(channel: Channel, snapshots: readonly SnapshotSummary[]): Promise<void> {
  let waiting: string[] = [];
  let bytes = 0;
  const flush = async (): Promise<void> => {
    if (waiting.length > 0) await channel.send(MessageType.snapshots, Buffer.from(`[${waiting.join(',')}]`));
    waiting = [];
    bytes = 0;
  };
  for (const snapshot of snapshots) {
    const json = JSON.stringify(snapshot);
    const length = Buffer.byteLength(json) + 1;
    if (bytes + length > MESSAGE_BYTES) await flush();
    waiting.push(json);
    bytes += length;
  }
  await flush();
  await channel.send(MessageType.listed);
}

/** Receives all snapshots, each once. Errors: REMOTE_FAILED. */
export async function receiveList(channel: Channel): Promise<SnapshotSummary[]> {
  const all = new Map<string, SnapshotSummary>();
  let total = 0;
  for (;;) {
    const { type, bytes } = await channel.receive(MessageType.snapshots, MessageType.listed);
    if (type === MessageType.listed) return [...all.values()];
    total += bytes.length;
    if (total > MAX_LIST_BYTES) throw protocolError(`sent a list of more than ${MAX_LIST_BYTES >> 20} MiB`);
    const some = parse(summaries, parseJson(bytes.toString('utf8')), (wrong) =>
      protocolError(`sent an invalid list of snapshots: ${wrong.message}`),
    );
    for (const one of some) all.set(one.id, { ...one, pauseMs: one.pauseMs ?? null });
  }
}
