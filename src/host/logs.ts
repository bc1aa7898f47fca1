/**
 * What a guest has written to its console, and what the process of a machine has written to its log.
 *
 * Invariant: memory is bounded. A machine keeps the last MiB of its console, a snapshot the last 64 KiB, and of a log only
 * the end is read.
 */
import { open } from 'node:fs/promises';
import { LivesnapError } from '../errors.js';
import { MachineClient, noSuchMachine } from '../machine/client.js';
import { HISTORY_HEADER } from '../machine/control-api.js';
import type { RunDirectory } from '../machine/run-directory.js';
import { decodeMachineState } from '../vmm/machine-state.js';
import { withStore } from './open-store.js';

const MAX_HISTORY_BYTES = 1 << 20;
const MAX_LOG_BYTES = 1 << 20;
const LINE_FEED = 0x0a;

/** The last lines of some output. Null: all of it. A line end at the end of the output ends its last line. */
export function lastLines(output: Uint8Array, lines: number | null): Uint8Array {
  if (lines === null) return output;
  let from = output.length;
  if (output[from - 1] === LINE_FEED) from--;
  for (let count = 0; count < lines; count++) {
    if (from <= 0) return output;
    from = output.lastIndexOf(LINE_FEED, from - 1);
    if (from < 0) return output;
  }
  return lines === 0 ? output.subarray(output.length) : output.subarray(from + 1);
}

export interface ConsoleOutput {
  /** The output so far. */
  readonly past: Uint8Array;
  /** What comes later, until the machine ends. Empty where there is none. */
  readonly rest: AsyncIterable<Uint8Array>;
  close(): void;
}

const NOTHING: AsyncIterable<Uint8Array> = { async *[Symbol.asyncIterator]() {} };

/** The console of a machine, also of one that failed. Errors: NO_SUCH_MACHINE, MACHINE_GONE (its output is lost). */
export async function consoleOf(directory: RunDirectory): Promise<ConsoleOutput> {
  const found = await directory.look();
  if (found === 'absent') throw noSuchMachine(directory.name);
  if (found === 'dead') return { past: await keptConsole(directory), rest: NOTHING, close: () => {} };
  const stream = await new MachineClient(directory).openConsole(MAX_HISTORY_BYTES);
  const wanted = Number(stream.headers[HISTORY_HEADER] ?? 0);
  const parts = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  const past: Buffer[] = [];
  let first: Buffer = Buffer.alloc(0);
  for (let missing = wanted; missing > 0; ) {
    const { done, value } = await parts.next();
    if (done) break;
    past.push(value.subarray(0, missing));
    first = value.subarray(missing);
    missing -= Math.min(missing, value.length);
  }
  async function* rest(): AsyncGenerator<Uint8Array, void, undefined> {
    if (first.length > 0) yield first;
    for (;;) {
      const { done, value } = await parts.next();
      if (done) return;
      yield value;
    }
  }
  return { past: Buffer.concat(past), rest: rest(), close: () => void stream.destroy() };
}

async function keptConsole(directory: RunDirectory): Promise<Uint8Array> {
  const output = await readEnd(directory.consoleFile, MAX_HISTORY_BYTES);
  if (output !== null) return output;
  throw new LivesnapError('MACHINE_GONE', `the console output of the machine ${directory.name} is lost`, {
    hint: `Its process has died. The log of the process: livesnap logs --vmm ${directory.name}.`,
  });
}

/** The console in a snapshot of a machine. Errors: those of the store, USAGE (not of a machine), BAD_STATE. */
export async function consoleInSnapshot(storeDir: string, ref: string): Promise<Uint8Array> {
  return withStore(storeDir, { write: false }, async (store) => {
    const snapshot = await store.openSnapshot(ref);
    try {
      const { kind } = snapshot.summary;
      if (kind !== 'machine')
        throw new LivesnapError('USAGE', `snapshot ${ref} is a ${kind}, which has no console`, {
          hint: 'Name the snapshot of a machine.',
        });
      return decodeMachineState(snapshot.metadata.state).console?.history ?? new Uint8Array(0);
    } finally {
      snapshot.close();
    }
  });
}

/** The end of the log of a machine's process. Errors: NO_SUCH_MACHINE. */
export async function processLogOf(directory: RunDirectory): Promise<Uint8Array> {
  if ((await directory.look()) === 'absent') throw noSuchMachine(directory.name);
  return (await readEnd(directory.log, MAX_LOG_BYTES)) ?? new Uint8Array(0);
}

/** Null: there is no such file. */
async function readEnd(path: string, mostBytes: number): Promise<Buffer | null> {
  try {
    await using file = await open(path);
    const { size } = await file.stat();
    const length = Math.min(size, mostBytes);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, size - length);
    return buffer.subarray(0, bytesRead);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
