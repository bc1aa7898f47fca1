import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AllowedFiles } from '../../../src/server/allowed-files.js';

describe('files of the host that requests name', () => {
  let dir = '';
  let files: AllowedFiles;
  beforeEach(() => {
    dir = realpathSync(mkdtempSync(join(tmpdir(), 'livesnap-allow-')));
    mkdirSync(join(dir, 'images/sub'), { recursive: true });
    mkdirSync(join(dir, 'images-secret'));
    writeFileSync(join(dir, 'images/kernel'), 'kernel');
    writeFileSync(join(dir, 'secret'), 'secret');
    writeFileSync(join(dir, 'images-secret/file'), 'secret');
    files = new AllowedFiles([join(dir, 'images')]);
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  /** The status and the message of a refusal. */
  const refusal = (path: string): unknown => {
    try {
      files.open(path)[Symbol.dispose]();
    } catch (error) {
      const { status, message } = error as { status: number; message: string };
      return { status, message };
    }
    return 'opened';
  };

  it('are opened once: another file under the name is not used', () => {
    const path = join(dir, 'images/kernel');
    const file = files.open(path);
    renameSync(join(dir, 'secret'), path);
    assert.equal(readFileSync(file.path, 'utf8'), 'kernel');
    file[Symbol.dispose]();
    assert.throws(() => readFileSync(file.path));
  });

  it('are opened to write by what was checked, and only if they are allowed', () => {
    const path = join(dir, 'images/kernel');
    const file = files.openToWrite(path);
    renameSync(path, join(dir, 'images/renamed'));
    writeFileSync(path, 'another');
    writeSync(file.fd, 'K');
    assert.equal(readFileSync(join(dir, 'images/renamed'), 'utf8'), 'Kernel');
    assert.equal(readFileSync(path, 'utf8'), 'another');
    file[Symbol.dispose]();
    symlinkSync(join(dir, 'secret'), join(dir, 'images/link'));
    for (const name of ['secret', 'images/link', 'images/absent'])
      assert.throws(() => files.openToWrite(join(dir, name)), {
        status: 403,
        message: 'this file of the host is not allowed',
      });
  });

  it('may be in use by another program that runs them', async () => {
    const path = join(dir, 'images/program');
    copyFileSync('/bin/sleep', path);
    chmodSync(path, 0o755);
    const program = spawn(path, ['60']);
    await once(program, 'spawn');
    try {
      assert.throws(() => files.openToWrite(path), {
        code: 'NOT_POSSIBLE_NOW',
        message: `${path} is in use by another program`,
      });
      files.open(path)[Symbol.dispose]();
    } finally {
      program.kill();
    }
  });

  it('may be named through a link to the directory that was allowed', () => {
    symlinkSync(join(dir, 'images'), join(dir, 'link'));
    const linked = new AllowedFiles([join(dir, 'link')]);
    for (const name of ['link/kernel', 'images/kernel']) linked.open(join(dir, name))[Symbol.dispose]();
  });

  it('are refused with one answer, whatever the reason', () => {
    symlinkSync(join(dir, 'secret'), join(dir, 'images/link'));
    symlinkSync('..', join(dir, 'images/up'));
    execFileSync('mkfifo', [join(dir, 'images/fifo')]);
    const refusals = [
      ...[
        'secret',
        'absent',
        'images/absent',
        'images/link',
        'images/up/secret',
        'images/../secret',
        'images/fifo',
      ],
      ...['images', 'images/sub', 'images-secret/file', 'images/kernel/', 'images/kernel\0'],
    ].map((name) => refusal(`${dir}/${name}`));
    refusals.push(refusal('images/kernel'), refusal(''), refusal('/dev/zero'), refusal('/proc/self/mem'));
    for (const each of refusals)
      assert.deepEqual(each, { status: 403, message: 'this file of the host is not allowed' });
    assert.equal(refusal(join(dir, 'images/sub/../kernel')), 'opened');
  });

  it('are none without an allowed directory, and a directory must exist', () => {
    assert.throws(() => new AllowedFiles([]).open(join(dir, 'images/kernel')), { status: 403 });
    assert.throws(() => new AllowedFiles([join(dir, 'absent')]), { code: 'USAGE' });
  });
});
