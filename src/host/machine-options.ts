/** What a machine is started or restored with, checked and turned into the request to its process. */
import { accessSync, constants, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { LivesnapError } from '../errors.js';
import { type Labels, requireLabels } from '../labels.js';
import type { LaunchRequest, StarterRequest } from '../machine/launch-messages.js';
import { MAX_LIFETIME_MS } from '../machine/lifetime.js';
import { tokenFile, tokenIn } from '../token-file.js';
import type { DiskRequest } from '../vmm/disk/disk-config.js';
import type { RestoreClock } from '../vmm/kvm/guest-time.js';
import type { CpuTemplate } from '../vmm/machine-types.js';
import type { RestoreFill } from '../vmm/memory/lazy-fill.js';
import type { NetConnection, NetRequest } from '../vmm/net/net-config.js';
import { requireObjects, requireOptions } from './arguments.js';
import type { LongCallOptions } from './call-options.js';
import { requireMemory } from './guest-memory.js';

/** A disk of a new machine. */
export interface DiskOptions {
  /**
   * A raw image or a block device; a directory or a file of which the guest gets a copy; or what a store has. With `fd`,
   * an open descriptor of this process, the machine gets that open file, and the path is only shown. The caller closes it.
   */
  readonly source: DiskRequest['source'];
  /** Default: `rw`. A share is always `ro`. */
  readonly mode?: DiskRequest['mode'] | undefined;
  /** Default: `pause`. */
  readonly onError?: DiskRequest['onError'] | undefined;
}

interface LaunchOptions extends LongCallOptions {
  /** Default: a free one. */
  readonly name?: string | undefined;
  /** Default: none; those of the snapshot for a restore. */
  readonly labels?: Labels | undefined;
  /** The machine ends after this time. Default: it has no end. */
  readonly lifetimeMs?: number | null | undefined;
  /**
   * Also serve the machine's API on this port of 127.0.0.1. 0: a free one. Requests there need the token in
   * `~/.local/state/livesnap/token`, which is made if it is missing.
   */
  readonly port?: number | undefined;
  /** Directory for what the guest writes to its disks. Default: that of the store. */
  readonly overlayDir?: string | undefined;
  /** Lines to type into the console, each at a prompt. Default: none. */
  readonly starter?: StarterRequest | undefined;
}

export interface StartOptions extends LaunchOptions {
  /** Path of a bzImage or an ELF vmlinux. */
  readonly kernel: string;
  readonly initrd?: string | undefined;
  /** Default: `console=ttyS0 reboot=t panic=-1`. */
  readonly cmdline?: string | undefined;
  /** A multiple of 4096. Default: 256 MiB. */
  readonly memoryBytes?: number | undefined;
  /** Default: 1. */
  readonly cpus?: number | undefined;
  readonly disks?: readonly DiskOptions[] | undefined;
  readonly nets?: readonly NetRequest[] | undefined;
  /** Give memory that the guest frees back to the host. */
  readonly balloon?: boolean | undefined;
  /** Default: all features of the host's processor. */
  readonly cpuTemplate?: CpuTemplate | undefined;
}

export interface RestoreOptions extends LaunchOptions {
  /** What the networks of the machine are connected to. Others have no link. */
  readonly nets?: readonly NetConnection[] | undefined;
  /** A clone, to run beside the original. */
  readonly asNew?: boolean | undefined;
  /** Default: `host`. */
  readonly clock?: RestoreClock | undefined;
  /** Default: `auto`, which is `lazy` where the host allows it. */
  readonly fill?: RestoreFill | undefined;
}

const NETS_EXAMPLE = "nets: [{ backend: { kind: 'user', forwards: [] }, mac: null }]";
const DEFAULT_MEMORY_BYTES = 256 * 2 ** 20;
const NO_STARTER: StarterRequest = { lines: [], prompt: null };

const usage = (message: string, hint: string): LivesnapError => new LivesnapError('USAGE', message, { hint });

/** The absolute path of a readable file. Errors: NO_SUCH_FILE, BAD_IMAGE, NO_PERMISSION, SYSTEM. */
export function readableFile(path: string, role: string): string {
  const absolute = resolve(path);
  try {
    const stats = statSync(absolute);
    if (!stats.isFile())
      throw new LivesnapError(
        'BAD_IMAGE',
        `${role} ${path} is ${stats.isDirectory() ? 'a directory' : 'not a regular file'}`,
        { hint: 'Specify a regular file.' },
      );
    accessSync(absolute, constants.R_OK);
  } catch (error) {
    if (error instanceof LivesnapError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new LivesnapError('NO_SUCH_FILE', `${role} ${path} does not exist`, { hint: 'Check the path.' });
    const isForbidden = code === 'EACCES' || code === 'EPERM';
    throw new LivesnapError(
      isForbidden ? 'NO_PERMISSION' : 'SYSTEM',
      `${role} ${path} cannot be read: ${message}`,
      { hint: 'Check the permissions of the file and of the directories above it.' },
    );
  }
  return absolute;
}

/** Errors: USAGE. */
export function requireLifetime(lifetimeMs: number | null): number | null {
  if (
    lifetimeMs === null ||
    (Number.isSafeInteger(lifetimeMs) && lifetimeMs >= 1 && lifetimeMs <= MAX_LIFETIME_MS)
  )
    return lifetimeMs;
  throw usage(`${lifetimeMs} ms is not a lifetime`, 'It is 1 ms to 366 days.');
}

function diskRequest({ source, mode, onError = 'pause' }: DiskOptions): DiskRequest {
  if (source.kind === 'snapshot') return { source, mode: mode ?? 'rw', onError };
  const isShare = source.kind === 'share';
  return {
    source: { ...source, path: resolve(source.path) },
    mode: isShare ? 'ro' : (mode ?? 'rw'),
    onError,
  };
}

/** What both kinds of request have in common. Errors: USAGE. */
export function launchRequest(
  storeDir: string,
  { labels, lifetimeMs = null, port, overlayDir, starter = NO_STARTER }: LaunchOptions,
): Omit<LaunchRequest, 'root' | 'name' | 'origin'> {
  return {
    storeDir,
    port: port === undefined ? null : { number: port, token: tokenIn(tokenFile()) },
    overlayDir: overlayDir === undefined ? null : resolve(overlayDir),
    starter,
    lifetimeMs: requireLifetime(lifetimeMs),
    ...(labels === undefined ? {} : { labels: requireLabels(labels) }),
  };
}

/** Errors: USAGE, NO_SUCH_FILE, BAD_IMAGE, NO_PERMISSION, SYSTEM. */
export function startOrigin(options: StartOptions): LaunchRequest['origin'] {
  requireOptions(options, 'start', "start({ kernel: 'vmlinux', memoryBytes: 256 << 20 })");
  const { kernel, initrd, cmdline, memoryBytes = DEFAULT_MEMORY_BYTES, cpus = 1 } = options;
  // Programs in JavaScript have no compiler that says so.
  if (typeof kernel !== 'string')
    throw usage('start needs a kernel', 'Give kernel: the path of a bzImage or a vmlinux.');
  if (!Number.isSafeInteger(cpus) || cpus < 1)
    throw usage(`${cpus} is not a number of vCPUs`, 'Specify 1 or more.');
  requireObjects(options.disks, 'disks', "disks: [{ source: { kind: 'file', path: 'disk.img' } }]");
  requireObjects(options.nets, 'nets', NETS_EXAMPLE);
  return {
    kind: 'start',
    config: {
      kernel: readableFile(kernel, 'kernel'),
      initrd: initrd === undefined ? null : readableFile(initrd, 'initrd'),
      cmdline: cmdline ?? null,
      memoryBytes: requireMemory(memoryBytes),
      cpus,
      ...(options.balloon ? { balloon: true } : {}),
      ...(options.cpuTemplate === undefined ? {} : { cpuTemplate: options.cpuTemplate }),
    },
    disks: (options.disks ?? []).map(diskRequest),
    nets: options.nets ?? [],
  };
}

/** `from`: the store that has the snapshot with this ID. */
export const restoreOrigin = (
  from: string,
  snapshot: string,
  { clock = 'host', nets = [], asNew = false, fill = 'auto' }: RestoreOptions,
): LaunchRequest['origin'] => {
  requireObjects(nets, 'nets', "nets: [{ index: 0, backend: { kind: 'user', forwards: [] } }]");
  return { kind: 'restore', from, snapshot, clock, nets, asNew, fill };
};
