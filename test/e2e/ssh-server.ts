/** A real sshd on loopback, and an `ssh` that reaches it under any host name. It needs root and openssh-server. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './free-port.js';

/** Why this host cannot run it; null if it can. */
export const missingForSsh = (): string | null =>
  existsSync('/usr/sbin/sshd') && process.getuid?.() === 0
    ? null
    : 'copies over ssh need root and openssh-server';

export class SshServer {
  private constructor(
    readonly port: number,
    /** The directory of an `ssh` that takes its configuration from here, for PATH. */
    readonly binDir: string,
    private readonly dir: string,
    private readonly sshd: ChildProcess,
  ) {}

  /** `env`: variables that commands on the server get. */
  static async start(env: Readonly<Record<string, string>> = {}): Promise<SshServer> {
    const dir = mkdtempSync(join(tmpdir(), 'livesnap-ssh-'));
    for (const key of ['host', 'user'])
      execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(dir, key)]);
    cpSync(join(dir, 'user.pub'), join(dir, 'authorized'));
    const port = await freePort();
    const setEnv = Object.entries(env).map(([name, value]) => `"${name}=${value}"`);
    writeFileSync(
      join(dir, 'sshd.conf'),
      [
        ...[`Port ${port}`, 'ListenAddress 127.0.0.1', `HostKey ${join(dir, 'host')}`],
        ...[`AuthorizedKeysFile ${join(dir, 'authorized')}`, 'StrictModes no', 'UsePAM no'],
        ...['PasswordAuthentication no', 'PermitRootLogin yes', 'PidFile none'],
        ...(setEnv.length > 0 ? [`SetEnv ${setEnv.join(' ')}`] : []),
        '',
      ].join('\n'),
    );
    writeFileSync(
      join(dir, 'ssh.conf'),
      [
        ...['Host *', 'HostName 127.0.0.1', `Port ${port}`, 'User root'],
        ...[`IdentityFile ${join(dir, 'user')}`, 'StrictHostKeyChecking no'],
        ...[`UserKnownHostsFile ${join(dir, 'known')}`, 'LogLevel ERROR', 'BatchMode yes', ''],
      ].join('\n'),
    );
    // In place of ~/.ssh/config.
    const binDir = join(dir, 'bin');
    mkdirSync(binDir);
    writeFileSync(join(binDir, 'ssh'), `#!/bin/sh\nexec /usr/bin/ssh -F ${join(dir, 'ssh.conf')} "$@"\n`);
    chmodSync(join(binDir, 'ssh'), 0o755);
    mkdirSync('/run/sshd', { recursive: true });
    const sshd = spawn('/usr/sbin/sshd', ['-D', '-e', '-f', join(dir, 'sshd.conf')], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let log = '';
    for await (const part of sshd.stderr!) {
      log += part;
      if (log.includes('Server listening')) break;
    }
    assert.match(log, /Server listening/);
    return new SshServer(port, binDir, dir, sshd);
  }

  async end(): Promise<void> {
    const gone = once(this.sshd, 'exit');
    this.sshd.kill();
    await gone;
    rmSync(this.dir, { recursive: true, force: true });
  }
}
