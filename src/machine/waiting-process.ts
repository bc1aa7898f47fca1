/**
 * A process for a machine that has no machine yet: it loads its code, starts its threads and waits for a
 * {@link LaunchRequest} (launch-messages.ts). A starter spawns it before it knows what the machine is.
 *
 * Thread: the main thread of the starter.
 *
 * Invariants:
 * - The process owns nothing before the request. If it is killed, or its starter ends, nothing is left.
 * - It gets the lock of its run directory and its log as open files, because only an open file carries a lock to another
 *   process (unix(7), SCM_RIGHTS). They are there before the request is.
 * - What it wrote before it had a log is kept for the error of {@link ended}.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LivesnapError } from '../errors.js';
import { FILES_FD, type LaunchReport, type LaunchRequest } from './launch-messages.js';

/**
 * A machine's process has threads of its own for all that takes long. V8's compilers and Node's pool for small file
 * operations need one thread each, where the defaults are four.
 */
const FEW_THREADS = ['--v8-pool-size=1'];

const MAX_OUTPUT_CHARACTERS = 64 * 1024;

export class WaitingProcess {
  /** Called for each report of the process. */
  onReport: (report: LaunchReport) => void = () => {};
  /** Resolves to the reason when the process has ended and everything it reported has arrived. */
  readonly ended: Promise<Error>;
  readonly #child: ChildProcess;
  #output = '';
  #log: string | null = null;
  #failure: LivesnapError | null = null;

  /** `kind`: what the request will ask for, so that the process starts the threads for it. */
  constructor(kind: LaunchRequest['origin']['kind']) {
    // Reading more certificates takes Node 50 ms, and this process opens no TLS connection.
    const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
    const program = fileURLToPath(new URL('./machine-process.js', import.meta.url));
    const child = spawn(process.execPath, [...FEW_THREADS, program, kind], {
      detached: true,
      cwd: '/',
      env: { ...env, UV_THREADPOOL_SIZE: '1' },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc', 'pipe'],
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr])
      stream?.on('data', (text) => {
        this.#output = (this.#output + text).slice(-MAX_OUTPUT_CHARACTERS);
      });
    for (const stream of child.stdio) stream?.on('error', () => {}); // the end of the process tells why
    child.on('message', (report: LaunchReport) => {
      if ('error' in report) this.#failure = LivesnapError.fromJSON(report.error);
      this.onReport(report);
    });
    this.ended = new Promise((resolve) => {
      child.on('error', resolve);
      // An error counts once the process has exited, and has released everything. `close` follows the last output.
      child.on('close', (status, signal) => {
        const why = () => resolve(this.#failure ?? this.#death(signal ?? `exit status ${status}`));
        // The last report may arrive after the process has ended.
        if (child.connected) child.once('disconnect', why);
        else why();
      });
    });
  }

  /**
   * Sends the request, after `give` has sent the files to the socket. Where the process has ended, nothing is sent: see
   * {@link ended}. `log` is the log's path. Errors: those of `give`.
   */
  send(request: LaunchRequest, log: string, give: (socket: number) => void): void {
    const child = this.#child;
    // Node passes no files between processes, and names the socket's descriptor nowhere else.
    const socket = child.stdio[FILES_FD] as { _handle?: { fd: number } | null } | null | undefined;
    const fd = socket?._handle?.fd ?? -1;
    if (fd < 0 || !child.connected) return;
    this.#log = log;
    give(fd);
    child.send(request, (error) => {
      if (error !== null && child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    });
  }

  /** Closes the channel: the starter needs nothing more of the process. */
  letGo(): void {
    if (this.#child.connected) this.#child.disconnect();
  }

  /** From now on the process does not keep the starter alive. */
  unref(): void {
    const child = this.#child;
    child.removeAllListeners();
    child.on('error', () => {});
    for (const stream of child.stdio) stream?.destroy();
    child.channel?.unref();
    child.unref();
  }

  /** Ends a process that got no request, and waits for its end. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended;
  }

  #death(how: string): LivesnapError {
    const sentence = lastSentence(this.#log) ?? lastLine(this.#output);
    return new LivesnapError(
      'MACHINE_FAILED',
      `the machine's process ended before the machine ran (${how})`,
      sentence === null ? {} : { hint: `Its log ends with: ${sentence}` },
    );
  }
}

/** The last line that is not part of a stack, for a process that died without a report. */
const lastLine = (text: string): string | null =>
  text
    .split('\n')
    .findLast((line) => !/^(\s|Node\.js v|$)/.test(line))
    ?.slice(0, 300) ?? null;

function lastSentence(log: string | null): string | null {
  try {
    return log === null ? null : lastLine(readFileSync(log, 'utf8'));
  } catch {
    return null;
  }
}
