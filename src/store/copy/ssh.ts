/**
 * A store on another host, reached through ssh: `ssh://[user@]host[:port]/dir` (docs/copy.md). ssh is the user's own,
 * with their keys, agent, and configuration; livesnap must be there, too.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { LivesnapError } from '../../errors.js';
import { decodePart, parseAddress } from './address.js';
import { type Channel, StreamChannel, soon } from './channel.js';

export interface SshAddress {
  readonly host: string;
  readonly port: string | null;
  readonly dir: string;
}

/** For the remote shell: within single quotes nothing has a meaning. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** `/~/x` is below the home directory there. Errors: USAGE. */
export function parseSshAddress(address: string): SshAddress {
  const url = parseAddress(address);
  const dir = decodePart(address, url.pathname);
  const user = decodePart(address, url.username);
  const host = user === '' ? url.hostname : `${user}@${url.hostname}`;
  // ssh would take a host that begins with a dash for an option.
  if (
    url.hostname === '' ||
    host.startsWith('-') ||
    url.hostname.startsWith('-') ||
    dir.length < 2 ||
    url.password !== ''
  )
    throw usage(address);
  return { host, port: url.port === '' ? null : url.port, dir };
}

const usage = (address: string): LivesnapError =>
  new LivesnapError('USAGE', `${JSON.stringify(address)} names no store on another host`, {
    hint: 'Give ssh://host/dir, ssh://user@host:port/dir or ssh://host/~/dir; ssh asks for passwords itself.',
  });

/** The words that ssh is called with. LIVESNAP_REMOTE_COMMAND: how livesnap is called there, if not by its name. */
export function sshArguments({ host, port, dir }: SshAddress): string[] {
  const command = process.env.LIVESNAP_REMOTE_COMMAND || 'livesnap';
  const path = dir.startsWith('/~/') ? `"$HOME"/${quoted(dir.slice(3))}` : quoted(dir);
  return [...(port === null ? [] : ['-p', port]), '--', host, `${command} serve-store --store ${path}`];
}

/** Runs `work` on a channel to the livesnap there. Errors: REMOTE_FAILED, and those of `work`. */
export async function withSshChannel<T>(
  address: SshAddress,
  work: (channel: Channel) => Promise<T>,
): Promise<T> {
  const ssh = spawn('ssh', sshArguments(address), { stdio: ['pipe', 'pipe', 'inherit'] });
  const failed = new Promise<never>((_, reject) => {
    ssh.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        new LivesnapError('REMOTE_FAILED', `ssh cannot be run: ${error.message}`, {
          hint: 'Install ssh (Debian: openssh-client).',
          cause: error,
        }),
      ),
    );
  });
  const ended: Promise<number | null> = once(ssh, 'exit').then(
    ([status]) => status,
    () => null,
  );
  /** What ssh left with, of itself: one that stays is ended, and what that leaves with means nothing. */
  const left = async (): Promise<number | null> => {
    const status = await soon(ended, undefined);
    if (status !== undefined) return status;
    ssh.kill();
    if ((await soon(ended, undefined)) === undefined) {
      ssh.kill('SIGKILL');
      await ended;
    }
    return null;
  };
  try {
    return await Promise.race([work(new StreamChannel(ssh.stdout, ssh.stdin)), failed]);
  } catch (error) {
    ssh.stdin.destroy();
    const status = await left();
    // 255 is ssh's own failure, 127 the shell's: the command is not there.
    if (
      error instanceof LivesnapError &&
      error.code === 'REMOTE_FAILED' &&
      (status === 255 || status === 127)
    )
      throw new LivesnapError(
        'REMOTE_FAILED',
        status === 255 ? `ssh could not reach ${address.host}` : `there is no livesnap on ${address.host}`,
        {
          hint:
            status === 255
              ? 'Try ssh by itself; its own message is above.'
              : 'Install it there, or say how it is called there with LIVESNAP_REMOTE_COMMAND.',
          cause: error,
        },
      );
    throw error;
  } finally {
    ssh.stdin.end();
    await left();
  }
}
