import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, readFileSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { closeNetPort, createNetPort, netPortFd } from '../../../../src/native/net.js';
import { startPasst } from '../../../../src/vmm/net/passt.js';

/** An ARP request for `address`, with its length in front. */
function arpRequest(address: readonly number[]): Buffer {
  const frame = Buffer.alloc(4 + 60);
  frame.writeUInt32BE(60);
  frame.fill(0xff, 4, 10);
  Buffer.from('020000000007', 'hex').copy(frame, 10);
  Buffer.from('0806000108000604' + '0001', 'hex').copy(frame, 16);
  Buffer.from('020000000007', 'hex').copy(frame, 26);
  Buffer.from(address).copy(frame, 42);
  return frame;
}

/** passt needs a route of the host: it copies its addresses. */
const hasRoute = (): boolean =>
  readFileSync('/proc/net/route', 'utf8')
    .split('\n')
    .some((line) => line.split('\t')[1] === '00000000');

describe('startPasst on a host without a network', () => {
  it('says what passt needs', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'livesnap-passt-'));
    const { PATH } = process.env;
    try {
      writeFileSync(join(dir, 'passt'), '#!/bin/sh\necho "External interface not usable" >&2\nexit 1\n', {
        mode: 0o755,
      });
      process.env.PATH = `${dir}:${PATH}`;
      await assert.rejects(startPasst([]), {
        message: 'passt ended at once (exit status 1)',
        hint: /^passt needs an interface of the host that is up/,
      });
    } finally {
      process.env.PATH = PATH;
      rmSync(dir, { recursive: true });
    }
  });
});

describe('startPasst', () => {
  before(function () {
    const why =
      spawnSync('passt', ['--version']).error !== undefined
        ? 'passt is not installed'
        : !hasRoute()
          ? 'the host has no default route, which passt needs'
          : null;
    if (why === null) return;
    console.warn(`      SKIPPED: ${why}`);
    this.skip();
  });

  async function freePort(): Promise<number> {
    const server = createServer().listen(0);
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    server.close();
    await once(server, 'close');
    return port;
  }

  it('serves a stream of frames and forwards ports, until it is ended', async () => {
    const hostPort = await freePort();
    const passt = await startPasst([{ address: '127.0.0.1', hostPort, guestPort: 80 }]);
    const port = createNetPort(passt.fd, { isStream: true });
    try {
      const fd = netPortFd(port);
      const listening = `:${hostPort.toString(16).toUpperCase().padStart(4, '0')} `;
      assert(readFileSync('/proc/net/tcp', 'latin1').includes(listening), 'the port is open');
      writeSync(fd, arpRequest([10, 1, 2, 3]));
      const answer = Buffer.alloc(2000);
      let length = 0;
      while (length < 4 + 14 || answer.readUInt16BE(4 + 12) !== 0x0806) {
        await sleep(5);
        try {
          length = readSync(fd, answer);
        } catch (error) {
          assert.equal((error as NodeJS.ErrnoException).code, 'EAGAIN');
        }
      }
      assert.equal(answer.readUInt16BE(4 + 20), 2, 'an ARP reply');
      passt.end();
      while (readFileSync('/proc/net/tcp', 'latin1').includes(listening)) await sleep(5);
    } finally {
      passt.end();
      closeNetPort(port);
    }
  });

  it('ends passt when the stream is closed, however that happens', async () => {
    const hostPort = await freePort();
    const passt = await startPasst([{ address: null, hostPort, guestPort: 80 }]);
    closeSync(passt.fd);
    const listening = `:${hostPort.toString(16).toUpperCase().padStart(4, '0')} `;
    while (readFileSync('/proc/net/tcp6', 'latin1').includes(listening)) await sleep(5);
  });

  it('says what passt said when it does not start', async () => {
    await assert.rejects(startPasst([{ address: null, hostPort: 70_000, guestPort: 80 }]), (error: Error) =>
      /passt ended at once|options.port|Port should be/.test(error.message),
    );
  });
});
