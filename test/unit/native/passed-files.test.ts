import assert from 'node:assert/strict';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tryLock } from '../../../src/native/locks.js';
import { receiveFiles, replaceFile, sendFiles } from '../../../src/native/passed-files.js';

const fdOf = (socket: Socket): number => (socket as unknown as { _handle: { fd: number } })._handle.fd;

describe('passed files', () => {
  let dir: string;
  let ends: Socket[];
  let from: number;
  let to: number;
  const fds: number[] = [];
  const open = (name: string): number => {
    const fd = openSync(join(dir, name), 'a+');
    fds.push(fd);
    return fd;
  };
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-files-'));
    const server = createServer({ pauseOnConnect: true }).listen(join(dir, 'socket'));
    await once(server, 'listening');
    const accepted = once(server, 'connection');
    const connected = connect(join(dir, 'socket'));
    await once(connected, 'connect');
    ends = [connected, ...((await accepted) as Socket[])];
    server.close();
    [from, to] = ends.map(fdOf) as [number, number];
  });
  afterEach(() => {
    for (const fd of fds.splice(0)) closeSync(fd);
    for (const end of ends) end.destroy();
    rmSync(dir, { recursive: true });
  });

  it('are the same open files, in the order in which they were sent, with their locks', () => {
    const [a, b] = [open('a'), open('b')];
    assert.ok(tryLock(a, 'exclusive'));
    sendFiles(from, [a, b]);
    closeSync(fds.shift()!);
    const [gotA, gotB] = receiveFiles(to, 2) as [number, number];
    fds.push(gotA, gotB);
    assert.equal(tryLock(open('a'), 'shared'), false);
    assert.ok(tryLock(gotA, 'exclusive'));
    writeSync(gotB, 'text');
    assert.equal(readFileSync(join(dir, 'b'), 'utf8'), 'text');
    assert.equal(readSync(b, Buffer.alloc(4), 0, 4, 0), 4);
  });

  it('are refused, and closed, if they are not as many as expected', () => {
    const a = open('a');
    assert.ok(tryLock(a, 'exclusive'));
    sendFiles(from, [a]);
    closeSync(fds.shift()!);
    assert.throws(() => receiveFiles(to, 2), { errnoName: 'EBADMSG' });
    assert.ok(tryLock(open('a'), 'exclusive'));
  });

  it('are not waited for', () => {
    assert.throws(() => receiveFiles(to, 1), { errnoName: 'EAGAIN' });
  });

  it('replace other files', () => {
    const [a, b] = [open('a'), open('b')];
    replaceFile(a, b);
    writeSync(b, 'text');
    assert.equal(readFileSync(join(dir, 'a'), 'utf8'), 'text');
    assert.equal(readFileSync(join(dir, 'b'), 'utf8'), '');
  });

  it('must be files', () => {
    assert.throws(() => sendFiles(from, [12_345]), { errnoName: 'EBADF' });
    assert.throws(() => sendFiles(from, []), TypeError);
    assert.throws(() => replaceFile(12_345, 12_346), { errnoName: 'EBADF' });
  });
});
