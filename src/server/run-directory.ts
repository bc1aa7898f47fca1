/**
 * Run directories: one per machine, named after it, holding its lock, control socket, log and a note of what it
 * is. The kernel's lock on the file `lock` says whether the machine's process lives (design: processes).
 *
 * Invariants: only the holder of the exclusive lock changes a directory, and the lock is on the inode that the
 * path names at that moment; a directory disappears in one step (it is renamed away, then emptied); the folder of
 * all of them is the user's own, 0700 and no symbolic link.
 */
import { randomInt } from 'node:crypto';
import { closeSync, constants, fstatSync, lstatSync, openSync, readFileSync, statSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { userId } from '../environment.js';
import { LivesnapError } from '../errors.js';

/** What `machine.json` says of a machine. */
export interface MachineRecord {
  readonly name: string;
  readonly pid: number;
  readonly memoryBytes: number;
  readonly cpus: number;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  /** The snapshot it was last saved to or restored from. */
  readonly snapshot: string | null;
  /** The control API's port on 127.0.0.1 besides the socket. */
  readonly port: number | null;
  /** Why it could not go on; null unless its end was a failure. */
  readonly failure: string | null;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/** Errors: USAGE. */
export function checkMachineName(name: string): string {
  if (NAME.test(name)) return name;
  throw new LivesnapError('USAGE', `${JSON.stringify(name)} is not a name for a machine`, {
    hint: 'A name is 1 to 63 letters, digits, dots, underscores or dashes and begins with a letter or digit.',
  });
}

const ADJECTIVES =
  'amber brave brisk calm clear cosy deft eager early fair fleet fresh gentle glad grand happy keen kind late light lively lucky merry mild neat proud quick quiet ready sharp sunny swift';
const ANIMALS =
  'badger beaver bison crane dove eagle egret falcon ferret finch fox gecko heron ibis jay koala lark lemur lynx marten newt otter owl panda puffin quail raven robin seal stoat swan wren';

/** A name such as `brave-otter`: one of 1024, for the caller to claim and to draw again when it is taken. */
export function drawName(): string {
  const pick = (words: string) => {
    const all = words.split(' ');
    return all[randomInt(all.length)]!;
  };
  return `${pick(ADJECTIVES)}-${pick(ANIMALS)}`;
}

/** What the system says of a run directory, as the project's error where its file system is full. */
export function runDirectoryError(path: string, error: unknown): unknown {
  const { code = '' } = error as NodeJS.ErrnoException;
  if (!['ENOSPC', 'EDQUOT'].includes(code)) return error;
  return new LivesnapError('NO_SPACE', `the file system of the run directory ${path} is full`, {
    hint: 'Free some space there, or set XDG_RUNTIME_DIR to a directory of yours on another file system.',
    cause: error,
  });
}

/** The error for a run directory that the system does not let this process use. */
function unusable(path: string, problem: string, error: unknown): LivesnapError {
  const known = runDirectoryError(path, error);
  if (known instanceof LivesnapError) return known;
  const { message } = error as Error;
  return new LivesnapError('SYSTEM', `the run directory ${path} cannot be ${problem}: ${message}`, {
    hint: 'Set XDG_RUNTIME_DIR to a directory of yours.',
    cause: error,
  });
}

/** Makes sure that `root` exists and is this user's alone. Errors: SYSTEM, NO_SPACE. */
export async function checkRunRoot(root: string): Promise<void> {
  try {
    await mkdir(root, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw unusable(root, 'made', error);
  }
  requireOwnRunRoot(root);
}

/** Whether `root` exists; if it does, it must be this user's alone. Errors: SYSTEM. */
function requireOwnRunRoot(root: string): boolean {
  let found: ReturnType<typeof lstatSync>;
  try {
    found = lstatSync(root);
  } catch (error) {
    if (isMissing(error)) return false;
    throw unusable(root, 'read', error);
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

/** Whether the error says that the file is not there. */
const isMissing = (error: unknown): boolean =>
  ['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '');

/** Whether `path` names the file that is open as `fd`. */
function names(path: string, fd: number): boolean {
  const named = statSync(path, { throwIfNoEntry: false });
  const open = fstatSync(fd);
  return named !== undefined && named.ino === open.ino && named.dev === open.dev;
}

/** Whether the process is there and not merely waiting to be reaped. */
function processRuns(pid: number): boolean {
  try {
    // "1 (comm) S …": the state is behind the name, which may itself hold parentheses.
    return !/\) [ZX] [^)]*$/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

/** The place of one machine, whether or not there is one; what it says may be out of date at once. */
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
  get recordFile(): string {
    return join(this.path, 'machine.json');
  }

  /** What the machine's process noted; null when there is no machine or it has noted nothing yet. */
  async readRecord(): Promise<MachineRecord | null> {
    try {
      return JSON.parse(await readFile(this.recordFile, 'utf8')) as MachineRecord;
    } catch (error) {
      if (isMissing(error) || error instanceof SyntaxError) return null;
      throw error;
    }
  }

  /** Opens the lock file to look at it; null when there is no machine of this name. Errors: SYSTEM. */
  private openLock(): number | null {
    // Whoever owns the folder could have this process talk to a machine of theirs.
    if (!requireOwnRunRoot(this.root)) return null;
    try {
      return openSync(this.lockFile, constants.O_RDWR | constants.O_NOFOLLOW);
    } catch (error) {
      if (isMissing(error)) return null;
      throw unusable(this.path, 'read', error);
    }
  }

  /** `absent`: no such directory; `live`: a process holds it; `dead`: its process is gone. */
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
   * A way to wait for the end of the process that holds the directory now. Take it before asking the process to
   * end: it watches that process and its lock, not the name. False when it has not ended within `timeoutMs`.
   */
  async watchEnd(): Promise<(timeoutMs: number) => Promise<boolean>> {
    const fd = this.openLock();
    if (fd === null) return async () => true;
    const pid = (await this.readRecord())?.pid;
    return async (timeoutMs) => {
      try {
        const { tryLock } = await import('../native/locks.js');
        const deadline = performance.now() + timeoutMs;
        // The lock goes a little before the rest of what the process holds.
        while (!tryLock(fd, 'shared') || (pid !== undefined && processRuns(pid))) {
          if (performance.now() > deadline) return false;
          await sleep(10);
        }
        return true;
      } finally {
        closeSync(fd);
      }
    };
  }

  /**
   * Makes the directory this process's; whatever a dead machine left in it is removed.
   * Errors: NAME_IN_USE, SYSTEM, NO_SPACE.
   */
  async claim(): Promise<ClaimedRunDirectory> {
    const { requireLocks, tryLock } = await import('../native/locks.js');
    requireLocks(); // before anything is made
    // Somebody who looks holds the lock, shared, for an instant: being refused is final only when it lasts.
    let refusals = 0;
    for (;;) {
      await checkRunRoot(this.root);
      await mkdir(this.path, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST') throw unusable(this.path, 'made', error);
      });
      let fd: number;
      try {
        fd = openSync(this.lockFile, constants.O_CREAT | constants.O_RDWR | constants.O_NOFOLLOW, 0o600);
      } catch (error) {
        if (isMissing(error)) continue;
        throw unusable(this.path, 'written', error);
      }
      try {
        if (tryLock(fd, 'exclusive')) {
          if (names(this.lockFile, fd)) {
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
        throw new LivesnapError('NAME_IN_USE', `there is already a machine named ${this.name}`, {
          hint: `Choose another --name, or end it with: livesnap stop ${this.name}.`,
        });
      }
      await sleep(20);
    }
  }
}

/** A run directory whose lock this process holds (or has handed on to the child that inherits `lockFd`). */
export class ClaimedRunDirectory extends RunDirectory {
  constructor(
    root: string,
    name: string,
    readonly lockFd: number,
  ) {
    super(root, name);
  }

  /** False when the directory was removed; its name may be another machine's by now. */
  private isStillOurs(): boolean {
    return names(this.lockFile, this.lockFd);
  }

  /** Errors: NO_SPACE. */
  async writeRecord(record: MachineRecord): Promise<void> {
    if (!this.isStillOurs()) return;
    const draft = `${this.recordFile}.new`;
    try {
      await writeFile(draft, `${JSON.stringify(record)}\n`, { mode: 0o600 });
      await rename(draft, this.recordFile);
    } catch (error) {
      throw runDirectoryError(this.path, error);
    }
  }

  /** Removes the directory; the name is free as soon as the lock is released, too. */
  async remove(): Promise<void> {
    if (!this.isStillOurs()) return;
    // A name cannot begin with a dot, so nobody takes the renamed directory for a machine.
    const grave = join(this.root, `.${this.name}.${process.pid}`);
    await rename(this.path, grave);
    await rm(grave, { recursive: true, force: true });
  }

  /** Closes this process's hold of the lock; a child that inherited it keeps it. */
  release(): void {
    closeSync(this.lockFd);
  }
}

/** Claims the first free name that `names` gives (it is asked again each time one is taken). */
export async function claimFreeName(root: string, names: () => string): Promise<ClaimedRunDirectory> {
  for (let tries = 0; ; tries++) {
    try {
      return await new RunDirectory(root, names()).claim();
    } catch (error) {
      const taken = error instanceof LivesnapError && error.code === 'NAME_IN_USE';
      if (!taken || tries >= 100) throw error;
    }
  }
}

/** The places of all machines, living and dead, by name. */
export async function listRunDirectories(root: string): Promise<RunDirectory[]> {
  if (!requireOwnRunRoot(root)) return [];
  let entries: string[];
  try {
    entries = await readdir(root);
  } catch (error) {
    if (isMissing(error)) return [];
    throw unusable(root, 'read', error);
  }
  return entries
    .filter((name) => NAME.test(name))
    .sort()
    .map((name) => new RunDirectory(root, name));
}
