/**
 * A store on another host, reached through ssh: `ssh://[user@]host[:port]/dir` (docs/copy.md). ssh is the user's own,
 * with their keys, agent, and configuration; livesnap must be there, too.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { LivesnapError } from '../../errors.js';
import { type Channel, StreamChannel, withTimeout } from '../copy/channel.js';
import { askForCopies } from '../copy/sessions.js';
import { decodePart, parseAddress, shown } from './address.js';
import type { Scheme } from './remote.js';

export const ssh: Scheme = {
  example: 'ssh://host/dir',
  receives: true,
  open(address) {
    const parsed = parseSshAddress(address);
    return {
      copy: (store, { direction, refs, onPlan, progress, onNotice = () => {} }) =>
        withSshChannel(parsed, onNotice, (channel) =>
          askForCopies(channel, store, direction, refs, { onPlan, progress, compress: true }),
        ),
    };
  },
};

export interface SshAddress {
  readonly host: string;
  readonly port: string | null;
  readonly dir: string;
}

/** What ssh itself takes for a host; a name in its configuration may have other letters than the DNS. */
const HOST = /^[\p{L}\p{N}_][\p{L}\p{M}\p{N}_.+-]*$/u;
/** None that a ProxyCommand would give to a shell. A backslash may stand between a domain and a user. */
const USER = /^(?!-)[^\s'"`;&<>|(){}$]*$/u;

/** For the remote shell: within single quotes nothing has a meaning. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** `/~/x` is below the home directory there. Errors: USAGE. */
export function parseSshAddress(address: string): SshAddress {
  const url = parseAddress(address, ssh.example);
  const dir = decodePart(address, url.pathname);
  const user = decodePart(address, url.username);
  const isIpv6 = url.hostname.startsWith('[');
  // ssh takes no brackets, and a host that begins with a dash for an option.
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
  new LivesnapError('USAGE', `${shown(address)} names no store on another host`, {
    hint: 'Give ssh://host/dir, ssh://user@host:port/dir or ssh://host/~/dir; ssh asks for passwords itself.',
  });

/** The words that ssh is called with. LIVESNAP_REMOTE_COMMAND: how livesnap is called there, if not by its name. */
export function sshArguments({ host, port, dir }: SshAddress): string[] {
  const command = process.env.LIVESNAP_REMOTE_COMMAND || 'livesnap';
  const path = dir.startsWith('/~/') ? `"$HOME"/${quoted(dir.slice(3))}` : quoted(dir);
  return [...portArguments({ port }), '--', host, `${command} serve-store --store ${path}`];
}

const portArguments = ({ port }: Pick<SshAddress, 'port'>): string[] => (port === null ? [] : ['-p', port]);

/** Lines, the longer ones in parts; the last may go on. */
const LINES = /[^\n]{4096}|[^\n]*\n|[^\n]+$/g;

/** What ssh and the shell there print, which may be anything, line by line. */
class Notices {
  /** Resolves when nothing more comes. */
  readonly ended: Promise<unknown>;
  last = '';
  #rest = '';

  constructor(
    readonly input: Readable,
    readonly tell: (line: string) => void,
  ) {
    this.ended = once(input, 'close').catch(() => {});
    input.setEncoding('utf8').on('data', (part: string) => {
      const lines = (this.#rest + part).match(LINES) ?? [];
      this.#rest = lines.at(-1)?.endsWith('\n') ? '' : (lines.pop() ?? '');
      for (const line of lines) this.#tell(line);
    });
    input.on('end', () => this.#tell(this.#rest));
  }

  #tell(line: string): void {
    const text = line.trimEnd();
    if (text === '') return;
    this.last = text;
    this.tell(text);
  }
}

/**
 * Runs `work` on a channel to the livesnap there; `onNotice` gets the lines that ssh prints. Errors: REMOTE_FAILED, and
 * those of `work`.
 */
async function withSshChannel<T>(
  address: SshAddress,
  onNotice: (line: string) => void,
  work: (channel: Channel) => Promise<T>,
): Promise<T> {
  const child = spawn('ssh', sshArguments(address), { stdio: ['pipe', 'pipe', 'pipe'] });
  const notices = new Notices(child.stderr, onNotice);
  const failed = new Promise<never>((_, reject) => {
    child.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        new LivesnapError('REMOTE_FAILED', `ssh cannot be run: ${error.message}`, {
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
  /** What ssh left with, of itself: one that stays is ended, and what that leaves with means nothing. */
  const left = async (): Promise<number | null> => {
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
    const status = await left();
    await withTimeout(notices.ended, undefined);
    // 255 is ssh's own failure, 127 the shell's: the command is not there.
    if (
      error instanceof LivesnapError &&
      error.code === 'REMOTE_FAILED' &&
      (status === 255 || status === 127)
    )
      throw new LivesnapError(
        'REMOTE_FAILED',
        (status === 255 ? `ssh could not reach ${address.host}` : `there is no livesnap on ${address.host}`) +
          (notices.last === '' ? '' : `: ${notices.last}`),
        {
          hint:
            status === 255
              ? `Try it by itself: ssh ${[...portArguments(address), address.host].join(' ')}`
              : 'Install it there, or say how it is called there with LIVESNAP_REMOTE_COMMAND.',
          cause: error,
        },
      );
    throw error;
  } finally {
    child.stdin.end();
    await left();
    // A connection that ssh shares and leaves in the background holds this pipe: nobody waits for it.
    (child.stderr as Socket).unref();
  }
}
