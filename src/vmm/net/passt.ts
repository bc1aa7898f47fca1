/**
 * Runs passt, a network in user mode that needs no root: Debian's package `passt`.
 *
 * Thread: the main thread.
 *
 * Invariants:
 * - passt gets one end of a socket and nothing else. It ends when the other end is closed, however this process ends.
 * - The guest does not reach the host's loopback through its gateway (--no-map-gw).
 * - A passt that does not start leaves nothing behind.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { chownSync, closeSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LivesnapError } from '../../errors.js';
import { netSocketPair } from '../../native/net.js';
import type { Forward } from './net-config.js';

const START_TIMEOUT_MS = 10_000;
const POLL_MS = 10;
/** The user that passt changes to when root starts it ("nobody"). */
const NOBODY = 65534;
/** How much of what passt says is kept for an error. */
const MAX_OUTPUT_CHARS = 4000;

export interface Passt {
  /** The stream that frames go through. The caller closes it. */
  readonly fd: number;
  end(): void;
}

/**
 * Resolves when passt serves the stream.
 * @throws LivesnapError HOST_LACKS (not installed), NAME_IN_USE (a port), NO_PERMISSION (a port), SYSTEM
 */
export async function startPasst(forwards: readonly Forward[]): Promise<Passt> {
  for (const forward of forwards) await checkPort(forward);
  const [fd, far] = netSocketPair({ isStream: true });
  const directory = mkdtempSync(join(tmpdir(), 'livesnap-passt-'));
  const started = join(directory, 'started');
  let child: ChildProcess | null = null;
  try {
    if (process.getuid?.() === 0) chownSync(directory, NOBODY, NOBODY);
    child = spawn('passt', argumentsOf(forwards, started), { stdio: ['ignore', 'ignore', 'pipe', far] });
    await waitUntilStarted(child, started);
  } catch (error) {
    child?.kill();
    closeSync(fd);
    throw error;
  } finally {
    closeSync(far);
    rmSync(directory, { recursive: true, force: true });
  }
  const running = child;
  running.unref();
  return { fd, end: () => void running.kill() };
}

const argumentsOf = (forwards: readonly Forward[], started: string): string[] => [
  ...['--foreground', '--fd', '3', '--no-map-gw', '--pid', started],
  // Only the ports that were asked for, and no UDP port beside each of them.
  ...['--udp-ports', 'none'],
  ...forwards.flatMap(({ address, hostPort, guestPort }) => [
    '--tcp-ports',
    `${address === null ? '' : `${address}/`}${hostPort}:${guestPort}`,
  ]),
];

/** passt writes its process ID when it is ready. */
async function waitUntilStarted(child: ChildProcess, started: string): Promise<void> {
  let output = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    output = (output + text).slice(-MAX_OUTPUT_CHARS);
  });
  (child.stderr as unknown as { unref(): void }).unref();
  let failure: LivesnapError | null = null;
  child.on('error', (error: NodeJS.ErrnoException) => {
    failure =
      error.code === 'ENOENT'
        ? new LivesnapError('HOST_LACKS', 'passt is not installed', {
            hint: 'Install it (Debian: apt-get install passt), or connect a tap: --net tap=TAP',
          })
        : new LivesnapError('SYSTEM', `passt cannot be started: ${error.message}`, { cause: error });
  });
  child.on('close', (status, signal) => {
    failure ??= new LivesnapError('SYSTEM', `passt ended at once (${signal ?? `exit status ${status}`})`, {
      hint: NO_INTERFACE.test(output)
        ? 'passt needs an interface of the host that is up and has an address. Or use --net tap=TAP.'
        : `It said: ${lastLine(output)}`,
    });
  });
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    if (failure !== null) throw failure;
    if (isWritten(started)) return;
    if (waitedMs > START_TIMEOUT_MS)
      throw new LivesnapError('TIMED_OUT', 'passt did not start in time', {
        hint: `It said: ${lastLine(output)}`,
      });
    await sleep(POLL_MS);
  }
}

function isWritten(path: string): boolean {
  try {
    return readFileSync(path).length > 0;
  } catch {
    return false;
  }
}

/** What passt says on a host without a network. */
const NO_INTERFACE = /External interface not usable/;

const lastLine = (output: string): string =>
  output
    .split('\n')
    .filter((line) => line !== '' && !/syslog/.test(line))
    .at(-1) ?? 'nothing';

/** passt does not tell whether it got a port, in versions up to that of Debian 12. */
function checkPort({ address, hostPort }: Forward): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', (error: NodeJS.ErrnoException) => {
      const where = `port ${hostPort}${address === null ? '' : ` of ${address}`}`;
      reject(
        error.code === 'EADDRINUSE'
          ? new LivesnapError('NAME_IN_USE', `${where} of the host is in use`, {
              hint: 'Forward another port of the host.',
            })
          : error.code === 'EACCES'
            ? new LivesnapError('NO_PERMISSION', `${where} of the host needs root`, {
                hint: 'Forward a port from 1024 on.',
              })
            : new LivesnapError('SYSTEM', `${where} of the host cannot be forwarded: ${error.message}`, {
                hint: 'Check the address.',
                cause: error,
              }),
      );
    });
    server.listen(hostPort, address ?? undefined, () => server.close(() => resolve()));
  });
}
