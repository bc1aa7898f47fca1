/** Builds the recorder (recorder.c), makes the environment of a child under it, and reads its trace. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { projectRoot } from '../../src/native/addon.js';

/** Kinds of records, as in recorder.c. */
export const Kind = {
  write: 1,
  truncate: 2,
  sync: 3,
  syncFailed: 4,
  create: 5,
  makeDirectory: 6,
  rename: 7,
  link: 8,
  unlink: 9,
  removeDirectory: 10,
  mark: 11,
  allocate: 12,
  unsupported: 13,
} as const;

const HEADER_BYTES = 40;

/** One call of the program, as the kernel carried it out. */
export interface TraceRecord {
  readonly kind: number;
  readonly inode: number;
  readonly offset: number;
  readonly size: number;
  /** The bytes written, or the path below the disk. */
  readonly first: Buffer;
  /** The second path. */
  readonly second: Buffer;
}

/** Reads a trace. An incomplete last record of a killed process is left out. */
export function readTrace(file: string): TraceRecord[] {
  const bytes = readFileSync(file);
  const records: TraceRecord[] = [];
  for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
    const firstBytes = bytes.readUInt32LE(at + 4);
    const secondBytes = bytes.readUInt32LE(at + 8);
    const first = at + HEADER_BYTES;
    const second = first + firstBytes;
    if (second + secondBytes > bytes.length) break;
    records.push({
      kind: bytes.readUInt32LE(at),
      inode: Number(bytes.readBigUInt64LE(at + 16)),
      offset: Number(bytes.readBigUInt64LE(at + 24)),
      size: Number(bytes.readBigUInt64LE(at + 32)),
      first: bytes.subarray(first, second),
      second: bytes.subarray(second, second + secondBytes),
    });
    at = second + secondBytes;
  }
  return records;
}

/** Formats a record as a line. */
export function describeRecord({ kind, inode, offset, size, first, second }: TraceRecord): string {
  const name = Object.entries(Kind).find(([, value]) => value === kind)?.[0] ?? String(kind);
  switch (kind) {
    case Kind.write:
      return `${name} inode ${inode} at ${offset}, ${first.length} bytes`;
    case Kind.truncate:
    case Kind.allocate:
      return `${name} inode ${inode} at ${offset}, size ${size}`;
    case Kind.sync:
    case Kind.syncFailed:
      return `${name} inode ${inode}`;
    default:
      return `${name} ${first.toString()}${second.length > 0 ? ` → ${second.toString()}` : ''}${inode ? ` (inode ${inode})` : ''}`;
  }
}

let library: string | undefined;

/** Path of the compiled recorder, which is built when its source has changed. */
export function recorderLibrary(): string {
  if (library) return library;
  const source = join(projectRoot, 'test/crash/recorder.c');
  const digest = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 16);
  const dir = join(tmpdir(), `livesnap-recorder-${process.getuid?.() ?? 0}`);
  const built = join(dir, `${digest}.so`);
  if (!existsSync(built)) {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const temporary = `${built}.${process.pid}`;
    execFileSync('cc', ['-shared', '-fPIC', '-O2', '-pthread', '-o', temporary, source], {
      stdio: 'inherit',
    });
    renameSync(temporary, built);
  }
  library = built;
  return built;
}

export interface Fault {
  /** Letters of `wsdruco`, as in recorder.c. */
  readonly classes: string;
  readonly nth: number;
  readonly action: 'ENOSPC' | 'EIO' | 'EMFILE' | 'before' | 'after';
  readonly always: boolean;
}

/**
 * The environment of a child whose changes below `disk` are recorded, or fail. Every read of the file `unreadable`
 * fails, and so does opening the file `unopenable`; both are relative to `disk`.
 */
export function watchedEnvironment(
  disk: string,
  {
    trace,
    marks,
    fault,
    unreadable,
    unopenable,
  }: { trace?: string; marks?: string; fault?: Fault; unreadable?: string; unopenable?: string },
): NodeJS.ProcessEnv {
  return {
    ...process.env,
    LD_PRELOAD: recorderLibrary(),
    UV_USE_IO_URING: '0', // its writes would bypass the C library, and so the recorder
    LIVESNAP_DISK: disk,
    ...(marks === undefined ? {} : { LIVESNAP_MARKS: marks }),
    ...(unreadable === undefined ? {} : { LIVESNAP_UNREADABLE: unreadable }),
    ...(unopenable === undefined ? {} : { LIVESNAP_UNOPENABLE: unopenable }),
    ...(trace === undefined ? {} : { LIVESNAP_TRACE: trace }),
    ...(fault === undefined
      ? {}
      : {
          LIVESNAP_FAULT: `${fault.classes}:${fault.nth}:${fault.action}:${fault.always ? 'always' : 'once'}`,
        }),
  };
}
