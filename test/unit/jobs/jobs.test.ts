/** Jobs in processes of their own, without machines. */
import assert from 'node:assert/strict';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LivesnapError } from '../../../src/errors.js';
import { StoreVerbs } from '../../../src/host/store-verbs.js';
import { JobDirectory, jobsFolder, writeRecord } from '../../../src/jobs/job-directory.js';
import type { JobRecord } from '../../../src/jobs/job-types.js';
import { Jobs } from '../../../src/jobs/jobs.js';
import { tryLock } from '../../../src/native/locks.js';

const hasCode = (code: string) => (error: unknown) => error instanceof LivesnapError && error.code === code;

const record = (state: JobRecord['state'], startedAt = '2026-01-01T00:00:00.000Z'): JobRecord => ({
  ...{ kind: 'gc', subject: '', state, startedAt, endedAt: null, progress: null, result: null, error: null },
});

describe('jobs', function () {
  this.timeout(60_000);
  let base: string;
  let root: string;
  let store: StoreVerbs;
  let jobs: Jobs;
  const held: number[] = [];

  beforeEach(async () => {
    base = mkdtempSync(join(tmpdir(), 'livesnap-jobs-'));
    root = join(base, 'run');
    store = new StoreVerbs(join(base, 'store'));
    jobs = new Jobs(root, store.dir);
    writeFileSync(join(base, 'file'), 'hello');
    await store.put(join(base, 'file'), { tags: ['a'] });
  });
  afterEach(() => {
    rmSync(base, { recursive: true, force: true });
  });

  const processesOf = (id: string): number[] =>
    readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => {
        try {
          return readlinkSync(`/proc/${pid}/fd/3`).includes(id);
        } catch {
          return false;
        }
      })
      .map(Number);

  /** A directory as a job leaves it. `isAlive`: its lock is held. */
  async function leave(id: string, state: JobRecord, isAlive = false): Promise<void> {
    const fd = await JobDirectory.at(root, id)!.create(state);
    if (isAlive) held.push(fd);
    else closeSync(fd);
  }

  it('do their work in a process of their own, and are found by others', async () => {
    await store.remove(['a']);
    const started = await jobs.start({ kind: 'gc' });
    assert.deepEqual([started.state, started.kind], ['running', 'gc']);
    assert.equal(statSync(join(jobsFolder(root), started.id)).mode & 0o777, 0o700);
    const others = new Jobs(root, store.dir);
    const ended = await others.wait(started.id);
    assert.equal(ended.state, 'done');
    assert((ended.result as { removedChunks: number }).removedChunks > 0);
    assert.deepEqual(await others.list(), [ended]);
    await others.remove(started.id);
    assert.deepEqual(await jobs.list(), []);
    await assert.rejects(jobs.find(started.id), hasCode('NO_SUCH_JOB'));
  });

  it('check, forget and copy as the library does', async () => {
    await store.put(join(base, 'file'), { tags: ['b'] });
    const check = await jobs.wait((await jobs.start({ kind: 'check', readData: true })).id);
    assert.equal((check.result as { ok: boolean }).ok, true);
    const to = join(base, 'other');
    const copy = await jobs.start({ kind: 'copy', snapshots: null, remote: { to } }, 'other');
    assert.equal((await jobs.wait(copy.id)).state, 'done');
    assert.equal((await new StoreVerbs(to).list()).length, 2);
    const forget = await jobs.start({
      ...{ kind: 'forget', keep: { last: 1 }, snapshots: [], groupBy: [{ by: 'machine' }], prune: true },
    });
    assert.equal((await jobs.wait(forget.id)).state, 'done');
    assert.deepEqual(
      (await store.list()).map(({ tags }) => tags),
      [['b']],
    );
  });

  it('fail with the error of the work', async () => {
    const { id } = await jobs.start({ kind: 'copy', snapshots: ['absent'], remote: { to: join(base, 'x') } });
    const { state, error } = await jobs.wait(id);
    assert.deepEqual([state, error!.code], ['failed', 'NO_SUCH_SNAPSHOT']);
  });

  it('are failed when their process was killed, and can be forgotten', async () => {
    // Another process has the store to itself, so the job waits.
    const fd = openSync(join(store.dir, 'lock'), 'r+');
    assert(tryLock(fd, 'exclusive'));
    try {
      const { id } = await jobs.start({ kind: 'gc' });
      let [pid] = processesOf(id);
      while (pid === undefined) [pid] = processesOf(id);
      process.kill(pid, 'SIGKILL');
      const { state, error } = await jobs.wait(id);
      assert.deepEqual([state, error!.message], ['failed', 'the process of the job died']);
      await jobs.remove(id);
      assert.deepEqual(readdirSync(jobsFolder(root)), []);
    } finally {
      closeSync(fd);
    }
  });

  it('can be cancelled', async () => {
    const fd = openSync(join(store.dir, 'lock'), 'r+');
    assert(tryLock(fd, 'exclusive'));
    let id: string;
    try {
      ({ id } = await jobs.start({ kind: 'check', readData: true }));
      await jobs.remove(id);
      await sleep(100);
    } finally {
      closeSync(fd);
    }
    const { state, error } = await jobs.wait(id);
    assert.deepEqual([state, error!.message], ['cancelled', 'the job was cancelled']);
  });

  it('are bounded: 16 that run, 100 that have ended', async () => {
    const idOf = (i: number): string => i.toString(16).padStart(32, '0');
    for (let i = 0; i < 120; i++) await leave(idOf(i), record('done', new Date(i * 1000).toISOString()));
    await jobs.wait((await jobs.start({ kind: 'gc' })).id);
    const left = await jobs.list();
    assert.equal(left.length, 100);
    assert.equal(left[0]!.id, idOf(21), 'the oldest are forgotten');
    for (let i = 200; i < 216; i++) await leave(idOf(i), record('running'), true);
    await assert.rejects(jobs.start({ kind: 'gc' }), hasCode('NOT_POSSIBLE_NOW'));
    for (const fd of held.splice(0)) closeSync(fd);
    assert.equal((await jobs.find(idOf(200))).state, 'failed', 'nobody holds its lock');
  });

  it('are named by IDs alone, and what is no directory of a job is none', async () => {
    for (const id of [
      '',
      '..',
      '../x',
      'a'.repeat(31),
      'A'.repeat(32),
      `${'a'.repeat(32)}/`,
      `${'a'.repeat(32)}\0`,
    ])
      await assert.rejects(jobs.find(id), hasCode('NO_SUCH_JOB'), JSON.stringify(id));
    mkdirSync(root, { mode: 0o700 });
    mkdirSync(jobsFolder(root), { mode: 0o700 });
    const forged = 'f'.repeat(32);
    mkdirSync(join(jobsFolder(root), forged));
    writeRecord(join(jobsFolder(root), forged), record('done'));
    assert.deepEqual(await jobs.list(), [], 'it has no lock');
    symlinkSync(join(base, 'file'), join(jobsFolder(root), forged, 'lock'));
    assert.deepEqual(await jobs.list(), [], 'its lock is a link');
    writeFileSync(join(jobsFolder(root), 'e'.repeat(32)), 'a file');
    assert.deepEqual(await jobs.list(), []);
  });
});
