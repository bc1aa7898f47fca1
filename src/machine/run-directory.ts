/**
 * Run directories: one per machine, named after it. It holds the machine's lock, control socket, log and record.
 * docs/api.md lists the files.
 *
 * Invariants:
 * - A process lives if and only if it holds the kernel's lock on the file `lock`. A pid proves nothing.
 * - Only the holder of the exclusive lock changes a directory, and only while the path still names the locked file.
 * - A directory disappears in one step: it is renamed, then emptied.
 * - The folder of all run directories belongs to the user alone: mode 0700 and no symbolic link.
 */
import { randomInt } from 'node:crypto';
import { closeSync, constants, fstatSync, lstatSync, openSync, readFileSync, statSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { userId } from '../environment.js';
import { LivesnapError } from '../errors.js';
import type { Labels } from '../labels.js';

/** The contents of `machine.json`. */
export interface MachineRecord {
  readonly id: string;
  readonly name: string;
  readonly labels: Labels;
  readonly pid: number;
  readonly memoryBytes: number;
  readonly cpus: number;
  /** Absent in the records of older versions. */
  readonly state?: 'running' | 'paused';
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  /** The snapshot it was last saved to or restored from. */
  readonly snapshot: string | null;
  /** The control API's port on 127.0.0.1, where it has one besides the socket. */
  readonly port: number | null;
  /** Why the machine failed; null unless it did. */
  readonly failure: string | null;
  /** When it failed, ISO 8601, UTC. Absent in the records of older versions. */
  readonly failedAt?: string | null;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/** Errors: USAGE. */
export const isMachineName = (name: string): boolean => NAME.test(name);

export function checkMachineName(name: string): string {
  if (isMachineName(name)) return name;
  throw new LivesnapError('USAGE', `${JSON.stringify(name)} is not a valid machine name`, {
    hint: 'A name is 1 to 63 letters, digits, dots, underscores and hyphens. It begins with a letter or digit.',
  });
}

const ADJECTIVES =
  'amber brave brisk calm clear cosy deft eager early fair fleet fresh gentle glad grand happy keen kind late light lively lucky merry mild neat proud quick quiet ready sharp sunny swift';
const ANIMALS =
  'badger beaver bison crane dove eagle egret falcon ferret finch fox gecko heron ibis jay koala lark lemur lynx marten newt otter owl panda puffin quail raven robin seal stoat swan wren';

/** A random name such as `brave-otter`, one of 1024. The caller claims it, and asks for another when it is taken. */
export function drawName(): string {
  const pick = (words: string) => {
    const all = words.split(' ');
    return all[randomInt(all.length)]!;
  };
  return `${pick(ADJECTIVES)}-${pick(ANIMALS)}`;
}

/** The error for a run directory, or the folder of all of them, when the system refused to `attempt` something there. */
export function runDirectoryError(
  path: string,
  attempt: 'create' | 'read' | 'write to',
  error: unknown,
): LivesnapError {
  const { code = '', message } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new LivesnapError('NO_SPACE', `the file system of the run directory ${path} is full`, {
      hint: 'Free some space there, or set XDG_RUNTIME_DIR to a directory of yours on another file system.',
      cause: error,
    });
  return new LivesnapError('SYSTEM', `cannot ${attempt} the run directory ${path}: ${message}`, {
    hint: 'Set XDG_RUNTIME_DIR to a directory of yours.',
    cause: error,
  });
}

/** Makes sure that `root` exists and belongs to this user alone. Errors: SYSTEM, NO_SPACE. */
export async function checkRunRoot(root: string): Promise<void> {
  try {
    await mkdir(root, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw runDirectoryError(root, 'create', error);
  }
  requireOwnRunRoot(root);
}

/** Whether `root` exists; if so, it must belong to this user alone. Errors: SYSTEM. */
function requireOwnRunRoot(root: string): boolean {
  let found: ReturnType<typeof lstatSync>;
  try {
    found = lstatSync(root);
  } catch (error) {
    if (isMissing(error)) return false;
    throw runDirectoryError(root, 'read', error);
  }
  const uid = userId();
  const wrong = found.isSymbolicLink()
    ? 'is a symbolic link'
    : !found.isDirectory()
      ? 'is not a directory'
      : found.uid !== uid
        ? `belongs to user ${found.uid}`
        : (found.mode & 0o077) !== 0
          ? `is open to others (mode ${(found.mode & 0o777).toString(8)})`
          : null;
  if (wrong !== null) {
    throw new LivesnapError('SYSTEM', `the run directory ${root} ${wrong}`, {
      hint: `Set XDG_RUNTIME_DIR to a directory of yours, or make this one yours alone: chown ${uid} ${root} && chmod 700 ${root}.`,
    });
  }
  return true;
}

const isMissing = (error: unknown): boolean =>
  ['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '');

/** Whether `path` names the file that is open as `fd`. */
function isNameOf(path: string, fd: number): boolean {
  const named = statSync(path, { throwIfNoEntry: false });
  const open = fstatSync(fd);
  return named !== undefined && named.ino === open.ino && named.dev === open.dev;
}

/** Whether the process exists and is not a zombie. */
function isRunning(pid: number): boolean {
  try {
    // "1 (comm) S …": the state follows the command's name, which may contain parentheses.
    return !/\) [ZX] [^)]*$/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

/** The run directory of one machine, whether or not it exists. Answers about it may be out of date at once. */
export class RunDirectory {
  readonly path: string;

  constructor(
    readonly root: string,
    readonly name: string,
  ) {
    this.path = join(root, checkMachineName(name));
  }

  get lockFile(): string {
    return join(this.path, 'lock');
  }
  get socket(): string {
    return join(this.path, 'control.sock');
  }
  get log(): string {
    return join(this.path, 'log');
  }
  /** The last output of the guest of a machine that failed. */
  get consoleFile(): string {
    return join(this.path, 'console');
  }
  get recordFile(): string {
    return join(this.path, 'machine.json');
  }

  /** The machine's record; null when there is no machine, or no record yet. */
  async readRecord(): Promise<MachineRecord | null> {
    try {
      return JSON.parse(await readFile(this.recordFile, 'utf8')) as MachineRecord;
    } catch (error) {
      if (isMissing(error) || error instanceof SyntaxError) return null;
      throw error;
    }
  }

  /** Opens the lock file to test the lock; null when there is no machine of this name. Errors: SYSTEM. */
  private openLock(): number | null {
    // The owner of a foreign folder could make this process talk to a machine of theirs.
    if (!requireOwnRunRoot(this.root)) return null;
    try {
      return openSync(this.lockFile, constants.O_RDWR | constants.O_NOFOLLOW);
    } catch (error) {
      if (isMissing(error)) return null;
      throw runDirectoryError(this.path, 'read', error);
    }
  }

  /** `absent`: no such directory; `live`: a process holds it; `dead`: its process has ended. */
  async look(): Promise<'absent' | 'live' | 'dead'> {
    const fd = this.openLock();
    if (fd === null) return 'absent';
    try {
      const { tryLock } = await import('../native/locks.js');
      return tryLock(fd, 'shared') ? 'dead' : 'live';
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Returns a function that waits for the end of the process that holds the directory now; false when the time is over.
   * Call `watchEnd` before the process is asked to end: it watches that process and its lock, not the name.
   */
  async watchEnd(): Promise<(timeoutMs: number) => Promise<boolean>> {
    const fd = this.openLock();
    if (fd === null) return async () => true;
    const pid = (await this.readRecord())?.pid;
    return async (timeoutMs) => {
      try {
        const { tryLock } = await import('../native/locks.js');
        const deadlineMs = performance.now() + timeoutMs;
        // A process loses its lock slightly before everything else it holds.
        while (!tryLock(fd, 'shared') || (pid !== undefined && isRunning(pid))) {
          if (performance.now() > deadlineMs) return false;
          await sleep(10);
        }
        return true;
      } finally {
        closeSync(fd);
      }
    };
  }

  /**
   * Takes the directory for this process and removes whatever a dead machine left in it.
   * Errors: NAME_IN_USE, SYSTEM, NO_SPACE.
   */
  async claim(): Promise<ClaimedRunDirectory> {
    const { requireLocks, tryLock } = await import('../native/locks.js');
    requireLocks(); // before anything is made
    // `look` holds the shared lock for an instant, so only repeated refusals count.
    let refusals = 0;
    for (;;) {
      await checkRunRoot(this.root);
      await mkdir(this.path, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST') throw runDirectoryError(this.path, 'create', error);
      });
      let fd: number;
      try {
        fd = openSync(this.lockFile, constants.O_CREAT | constants.O_RDWR | constants.O_NOFOLLOW, 0o600);
      } catch (error) {
        if (!isMissing(error)) throw runDirectoryError(this.path, 'write to', error);
        // A directory was removed by its machine just now. Anything else stays, and trying again would never end.
        const found = lstatSync(this.path, { throwIfNoEntry: false });
        if (found === undefined || found.isDirectory()) continue;
        throw new LivesnapError('SYSTEM', `the run directory ${this.path} is not a directory`, {
          hint: 'Move it away, or choose another --name.',
          cause: error,
        });
      }
      try {
        if (tryLock(fd, 'exclusive')) {
          if (isNameOf(this.lockFile, fd)) {
            for (const entry of await readdir(this.path))
              if (entry !== 'lock') await rm(join(this.path, entry), { recursive: true, force: true });
            const claimed = new ClaimedRunDirectory(this.root, this.name, fd);
            fd = -1;
            return claimed;
          }
          continue;
        }
      } finally {
        if (fd >= 0) closeSync(fd);
      }
      if (++refusals >= 10) {
        throw new LivesnapError('NAME_IN_USE', `a machine named ${this.name} already exists`, {
          hint: `Choose another --name, or stop it: livesnap stop ${this.name}.`,
        });
      }
      await sleep(20);
    }
  }
}

/** A run directory whose lock this process holds, or has passed to the child that inherits `lockFd`. */
export class ClaimedRunDirectory extends RunDirectory {
  constructor(
    root: string,
    name: string,
    readonly lockFd: number,
  ) {
    super(root, name);
  }

  /** False when the directory was removed. Another machine may have its name now. */
  private isStillOurs(): boolean {
    return isNameOf(this.lockFile, this.lockFd);
  }

  /** Errors: NO_SPACE, SYSTEM. */
  async writeRecord(record: MachineRecord): Promise<void> {
    if (!this.isStillOurs()) return;
    const draft = `${this.recordFile}.new`;
    try {
      await writeFile(draft, `${JSON.stringify(record)}\n`, { mode: 0o600 });
      await rename(draft, this.recordFile);
    } catch (error) {
      throw runDirectoryError(this.path, 'write to', error);
    }
  }

  /** Errors: NO_SPACE, SYSTEM. */
  async writeConsole(output: Uint8Array): Promise<void> {
    if (!this.isStillOurs()) return;
    await writeFile(this.consoleFile, output, { mode: 0o600 }).catch((error: unknown) => {
      throw runDirectoryError(this.path, 'write to', error);
    });
  }

  /** Removes the directory. The name is free once the lock is released too. */
  async remove(): Promise<void> {
    if (!this.isStillOurs()) return;
    // No machine's name begins with a dot, so nobody takes the renamed directory for a machine.
    const removed = join(this.root, `.${this.name}.${process.pid}`);
    await rename(this.path, removed);
    await rm(removed, { recursive: true, force: true });
  }

  /** Closes this process's descriptor of the lock. A child that inherited it keeps the lock. */
  release(): void {
    closeSync(this.lockFd);
  }
}

/** Claims the first free name of those that `nextName` returns. Errors: NAME_IN_USE after 100 names. */
export async function claimFreeName(root: string, nextName: () => string): Promise<ClaimedRunDirectory> {
  for (let tries = 0; ; tries++) {
    try {
      return await new RunDirectory(root, nextName()).claim();
    } catch (error) {
      const isTaken = error instanceof LivesnapError && error.code === 'NAME_IN_USE';
      if (!isTaken || tries >= 100) throw error;
    }
  }
}

/** The run directories of all machines, live and dead, by name. */
export async function listRunDirectories(root: string): Promise<RunDirectory[]> {
  if (!requireOwnRunRoot(root)) return [];
  let entries: string[];
  try {
    entries = await readdir(root);
  } catch (error) {
    if (isMissing(error)) return [];
    throw runDirectoryError(root, 'read', error);
  }
  return entries
    .filter((name) => NAME.test(name))
    .sort()
    .map((name) => new RunDirectory(root, name));
}
