import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { joined, WorkingSets } from '../../../../src/vmm/memory/working-set.js';

const ID = '0123456789abcdef0123456789abcdef';
const idOf = (n: number): string => n.toString(16).padStart(32, '0');
const SET = Uint32Array.from([0, 64, 1, 2 ** 32 - 1]);

describe('working sets', () => {
  let dir: string;
  let logged: string[];
  let sets: WorkingSets;

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-sets-'));
    logged = [];
    sets = new WorkingSets(join(dir, 'sets'), (sentence) => logged.push(sentence));
  });

  afterEach(() => rmSync(dir, { recursive: true }));

  it('are kept for each snapshot, for the user alone', async () => {
    assert.equal((await sets.read(ID)).length, 0);
    await sets.keep(ID, SET);
    assert.deepEqual(await sets.read(ID), SET);
    assert.equal((await sets.read(idOf(1))).length, 0);
    await sets.keep(ID, SET.subarray(0, 2));
    assert.deepEqual(await sets.read(ID), SET.slice(0, 2));
    assert.deepEqual(readdirSync(sets.dir), [ID]);
    assert.equal(statSync(join(sets.dir, ID)).mode & 0o777, 0o600);
    assert.equal(statSync(sets.dir).mode & 0o777, 0o700);
    assert.deepEqual(logged, []);
  });

  it('are empty where the file is anything else', async () => {
    mkdirSync(sets.dir);
    const path = join(sets.dir, ID);
    const bad = [
      '',
      'null',
      '[]',
      '{"version":2,"windows":[0,0]}',
      '{"version":1}',
      '{"version":1,"windows":[1]}',
      '{"version":1,"windows":[0,-1]}',
      '{"version":1,"windows":[0,4294967296]}',
      '{"version":1,"windows":["0",0]}',
      `{"version":1,"windows":[${'0,'.repeat(2 * 65_536 + 1)}0]}`,
      ' '.repeat(3 << 20),
    ];
    for (const text of bad) {
      writeFileSync(path, text);
      assert.equal((await sets.read(ID)).length, 0, text.slice(0, 40));
    }
    rmSync(path);
    writeFileSync(join(dir, 'good'), '{"version":1,"windows":[0,0]}');
    symlinkSync(join(dir, 'good'), path);
    assert.equal((await sets.read(ID)).length, 0, 'a link');
    rmSync(path);
    mkdirSync(path);
    assert.equal((await sets.read(ID)).length, 0, 'a directory');
    rmSync(path, { recursive: true });
    execFileSync('mkfifo', [path]);
    assert.equal((await sets.read(ID)).length, 0, 'a pipe');
  });

  it('that cannot be kept are logged, and leave nothing', async () => {
    writeFileSync(sets.dir, 'a file');
    await sets.keep(ID, SET);
    assert.match(logged.join(), new RegExp(`working set of snapshot ${ID} was not kept: `));
    assert.deepEqual(readdirSync(dir), ['sets']);
  });

  it('lose the oldest when there are too many', async () => {
    mkdirSync(sets.dir);
    for (let n = 0; n < 256; n++) {
      const path = join(sets.dir, idOf(n));
      writeFileSync(path, '{}');
      utimesSync(path, 1000, n === 7 ? 1000 : 2000);
    }
    await sets.keep(idOf(999), SET);
    const names = readdirSync(sets.dir);
    assert.equal(names.length, 256);
    assert.ok(!names.includes(idOf(7)) && names.includes(idOf(999)));
  });

  it('are joined in their order, each window once', () => {
    const first = Uint32Array.from([0, 16, 1, 0]);
    assert.deepEqual(
      joined(first, Uint32Array.from([1, 0, 0, 0, 0, 16, 0, 0])),
      Uint32Array.from([0, 16, 1, 0, 0, 0]),
    );
    assert.equal(joined(first, Uint32Array.from([1, 0])), null);
    assert.equal(joined(new Uint32Array(0), new Uint32Array(0)), null);
  });
});
