/** The files with which `livesnap open` signs a browser in. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SignInFiles } from '../../../src/server/sign-in-files.js';

describe('files that sign a browser in', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-sign-in-'));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it('lead to the server with the code, for this user alone, until the code is used', () => {
    const files = new SignInFiles(dir, 60_000);
    const path = files.write('http://127.0.0.1:7070', 'secret-1');
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert(!path.includes('secret'));
    assert.match(readFileSync(path, 'utf8'), /url=http:\/\/127\.0\.0\.1:7070\/#code=secret-1"/);
    files.remove('another');
    assert(existsSync(path));
    files.remove('secret-1');
    assert(!existsSync(path));
  });

  it('escape what would end the attribute', () => {
    const html = readFileSync(new SignInFiles(dir, 60_000).write('http://x"><script>', 'c'), 'utf8');
    assert(!html.includes('<script>'));
  });

  it('are deleted after the lifetime of the code, at the end, and by the next server', async () => {
    const files = new SignInFiles(dir, 20);
    files.write('http://x', 'a');
    await sleep(60);
    assert.deepEqual(readdirSync(dir), []);
    const slow = new SignInFiles(dir, 60_000);
    slow.write('http://x', 'b');
    writeFileSync(join(dir, 'lock'), '');
    new SignInFiles(dir, 60_000);
    assert.deepEqual(readdirSync(dir), ['lock']);
    slow.write('http://x', 'c');
    slow.close();
    assert.deepEqual(readdirSync(dir), ['lock']);
  });
});
