/**
 * The remote on another host, reached with ssh: `ssh://[user@]host[:port]/dir` (docs/copy.md). Runs the user's own ssh,
 * with its keys, agent and configuration. livesnap must be installed on that host.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { LivesnapError } from '../../errors.js';
import { type Channel, StreamChannel, withTimeout } from '../copy/channel.js';
import { requestCopies } from '../copy/sessions.js';
import { decodePart, parseAddress, shown } from './address.js';
import { operandError } from './operand-error.js';
import type { Scheme } from './remote.js';

export const ssh: Scheme = {
  example: 'ssh://host/dir',
  receives: true,
  open(address) {
    const parsed = parseSshAddress(address);
    return {
      copy: (store, { direction, refs, onNotice = () => {}, ...options }) =>
        withSshChannel(
          parsed,
          onNotice,
          (channel) => requestCopies(channel, store, direction, refs, { ...options, compress: true }),
          options.signal,
        ),
    };
  },
};

export interface SshAddress {
  readonly host: string;
  readonly port: string | null;
  readonly dir: string;
}

/** A host as ssh accepts it. A host alias in its configuration may have letters that DNS forbids. */
const HOST = /^[\p{L}\p{N}_][\p{L}\p{M}\p{N}_.+-]*$/u;
/** No characters that are special to a shell, which may run a ProxyCommand. A backslash may follow a domain. */
const USER = /^(?!-)[^\s'"`;&<>|(){}$]*$/u;

/** Quotes for the remote shell. Within single quotes no character is special. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** The directory `/~/x` is x in the home directory on that host. Errors: USAGE. */
export function parseSshAddress(address: string): SshAddress {
  const url = parseAddress(address, ssh.example);
  const dir = decodePart(address, url.pathname);
  const user = decodePart(address, url.username);
  const isIpv6 = url.hostname.startsWith('[');
  // ssh wants an IPv6 address without brackets. It would read a host that begins with a dash as an option.
  const host = isIpv6 ? url.hostname.slice(1, -1) : decodePart(address, url.hostname);
  if (
    !(isIpv6 || HOST.test(host)) ||
    !USER.test(user) ||
    url.port === '0' ||
    dir.length < 2 ||
    url.password !== ''
  )
    throw usage(address);
  return { host: user === '' ? host : `${user}@${host}`, port: url.port === '' ? null : url.port, dir };
}

const usage = (address: string): LivesnapError =>
  new LivesnapError('USAGE', `${shown(address)} is not a valid ssh address`, {
    hint: 'Use ssh://host/dir, ssh://user@host:port/dir or ssh://host/~/dir. ssh asks for passwords itself.',
  });

/** The arguments of ssh. LIVESNAP_REMOTE_COMMAND is the command for livesnap on that host (default: `livesnap`). */
export function sshArguments({ host, port, dir }: SshAddress): string[] {
  const command = process.env.LIVESNAP_REMOTE_COMMAND || 'livesnap';
  const path = dir.startsWith('/~/') ? `"$HOME"/${quoted(dir.slice(3))}` : quoted(dir);
  return [...portArguments({ port }), '--', host, `${command} serve-store --store ${path}`];
}

const portArguments = ({ port }: Pick<SshAddress, 'port'>): string[] => (port === null ? [] : ['-p', port]);

/** Lines, with long ones split. The last one may be incomplete. */
const LINES = /[^\n]{4096}|[^\n]*\n|[^\n]+$/g;

/** How long the last line is held back. ssh exits at once after it has printed why it failed. */
const HOLD_MS = 500;

/**
 * Reports what ssh and the remote shell print to stderr, line by line. The text is untrusted. The last line is held back
 * for a moment: if ssh then fails, the line is the reason, which the error reports.
 */
class Notices {
  /** Resolves when the stream has closed. */
  readonly ended: Promise<unknown>;
  #last = '';
  #rest = '';
  #held: NodeJS.Timeout | null = null;

  constructor(
    readonly input: Readable,
    readonly onNotice: (line: string) => void,
  ) {
    this.ended = once(input, 'close').catch(() => {});
    input.setEncoding('utf8').on('data', (part: string) => {
      const lines = (this.#rest + part).match(LINES) ?? [];
      this.#rest = lines.at(-1)?.endsWith('\n') ? '' : (lines.pop() ?? '');
      for (const line of lines) this.#report(line);
    });
    input.on('end', () => this.#report(this.#rest));
  }

  #report(line: string): void {
    const text = line.trimEnd();
    if (text === '') return;
    this.flush();
    this.#last = text;
    this.#held = setTimeout(() => this.flush(), HOLD_MS);
  }

  /** Reports the line that is held back, if any. */
  flush(): void {
    if (this.#release()) this.onNotice(this.#last);
  }

  /** The last line, for an error. It is not reported as well, unless that was done before. */
  takeLast(): string {
    this.#release();
    return this.#last;
  }

  #release(): boolean {
    if (this.#held === null) return false;
    clearTimeout(this.#held);
    this.#held = null;
    return true;
  }
}

/** How the message of an error that the other livesnap sent begins (protocol.ts). */
const OF_REMOTE = 'remote: ';

const ofRemote = (error: unknown): boolean =>
  error instanceof LivesnapError && error.message.startsWith(OF_REMOTE);

/**
 * Runs `work` with a channel to livesnap on the other host. `signal` ends ssh, and with it all waits for that host.
 * Errors: REMOTE_FAILED, and those of `work`.
 */
async function withSshChannel<T>(
  address: SshAddress,
  onNotice: (line: string) => void,
  work: (channel: Channel) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  signal?.throwIfAborted();
  const child = spawn('ssh', sshArguments(address), { stdio: ['pipe', 'pipe', 'pipe'] });
  const end = (): void => void child.kill();
  signal?.addEventListener('abort', end);
  const notices = new Notices(child.stderr, onNotice);
  const failed = new Promise<never>((_, reject) => {
    child.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        new LivesnapError('REMOTE_FAILED', `cannot run ssh: ${error.message}`, {
          hint: 'Install ssh (Debian: openssh-client).',
          cause: error,
        }),
      ),
    );
  });
  const ended: Promise<number | null> = once(child, 'exit').then(
    ([status]) => status,
    () => null,
  );
  /** The exit status of ssh; null when it did not exit by itself and had to be killed. */
  const exited = async (): Promise<number | null> => {
    const status = await withTimeout(ended, undefined);
    if (status !== undefined) return status;
    child.kill();
    if ((await withTimeout(ended, undefined)) === undefined) {
      child.kill('SIGKILL');
      await ended;
    }
    return null;
  };
  try {
    return await Promise.race([work(new StreamChannel(child.stdout, child.stdin)), failed]);
  } catch (error) {
    child.stdin.destroy();
    const status = await exited();
    await withTimeout(notices.ended, undefined);
    // 255 is a failure of ssh itself. 127 is the shell's status for a command that it cannot find.
    if (
      error instanceof LivesnapError &&
      error.code === 'REMOTE_FAILED' &&
      (status === 255 || status === 127)
    ) {
      const reason = notices.takeLast();
      throw new LivesnapError(
        'REMOTE_FAILED',
        (status === 255
          ? `ssh could not reach ${address.host}`
          : `livesnap was not found on ${address.host}`) + (reason === '' ? '' : `: ${reason}`),
        {
          hint:
            status === 255
              ? `Check that this works: ssh ${[...portArguments(address), address.host].join(' ')}`
              : 'Install livesnap there, or set LIVESNAP_REMOTE_COMMAND to the command that runs it.',
          cause: error,
        },
      );
    }
    throw ofRemote(error) ? operandError(OF_REMOTE, error) : error;
  } finally {
    notices.flush();
    signal?.removeEventListener('abort', end);
    child.stdin.end();
    await exited();
    // A shared connection that ssh leaves in the background keeps this pipe open. Do not wait for it.
    (child.stderr as Socket).unref();
  }
}
