/**
 * Commands of the control queue of a network device: virtio 1.2, section 5.1.6.5.
 *
 * Thread: the device thread.
 */
import type { DmaMemory } from '../memory/guest-memory.js';
import type { Chain } from './descriptor-chain.js';

/** What a driver asks for. */
export type Command =
  | { readonly kind: 'announced' }
  /** `offloads`: bits of the GUEST features. */
  | { readonly kind: 'setOffloads'; readonly offloads: bigint }
  /** One that the device does not have. */
  | { readonly kind: 'unknown' };

const Class = { announce: 3, guestOffloads: 5 } as const;
const ANNOUNCE_ACK = 0;
const GUEST_OFFLOADS_SET = 0;
const COMMAND_BYTES = 2;
const OFFLOADS_BYTES = 8;
const Ack = { ok: 0, error: 1 } as const;

/** Reads the first `length` bytes that a chain offers; null: there are fewer. */
function readBytes(memory: DmaMemory, { readable }: Chain, length: number): Buffer | null {
  const bytes = Buffer.alloc(length);
  let at = 0;
  for (const { gpa, length: available } of readable) {
    const part = bytes.subarray(at, at + available);
    if (part.length === 0) break;
    memory.read(gpa, part);
    at += part.length;
  }
  return at === length ? bytes : null;
}

export function readCommand(memory: DmaMemory, chain: Chain): Command {
  const header = readBytes(memory, chain, COMMAND_BYTES);
  if (header === null) return { kind: 'unknown' };
  const [commandClass, command] = header;
  if (commandClass === Class.announce && command === ANNOUNCE_ACK) return { kind: 'announced' };
  if (commandClass === Class.guestOffloads && command === GUEST_OFFLOADS_SET) {
    const bytes = readBytes(memory, chain, COMMAND_BYTES + OFFLOADS_BYTES);
    if (bytes !== null) return { kind: 'setOffloads', offloads: bytes.readBigUInt64LE(COMMAND_BYTES) };
  }
  return { kind: 'unknown' };
}

/** Writes the answer and returns its length; null: the chain has no room for one. */
export function answerCommand(memory: DmaMemory, { writable }: Chain, isOk: boolean): number | null {
  const [first] = writable;
  if (first === undefined) return null;
  memory.write(first.gpa, Uint8Array.of(isOk ? Ack.ok : Ack.error));
  return 1;
}
