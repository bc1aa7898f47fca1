/** Machines that wait for another process to release the store: they answer requests, stop, and obey signals. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MachineClient } from '../../src/machine/client.js';
import { launch } from '../../src/machine/launch.js';
import { RunDirectory } from '../../src/machine/run-directory.js';
import { projectRoot } from '../../src/native/addon.js';
import { tryLock } from '../../src/native/locks.js';
import { probe, requireKvm } from '../kvm/kvm.js';
import { ending, type Ran, World } from './cli.js';
import { alive, gone } from './processes.js';

/** The processes that this one has started. */
const children = (): number[] =>
  readFileSync(`/proc/self/task/${process.pid}/children`, 'latin1').split(' ').filter(Boolean).map(Number);

/** Resolves when the process has the file open. */
async function hasOpen(pid: number, path: string): Promise<void> {
  for (;;) {
    for (const fd of readdirSync(`/proc/${pid}/fd`))
      try {
        if (readlinkSync(`/proc/${pid}/fd/${fd}`) === path) return;
      } catch {}
    await sleep(5);
  }
}

/** Makes users of a store wait at `file` until it is released. */
interface Obstacle {
  readonly description: string;
  /** A waiting process has this file open. */
  readonly file: string;
  block(store: string): Promise<() => Promise<void>>;
}

const lockOf = (file: string): Obstacle => ({
  description: `the lock ${file}, which a repair holds`,
  file,
  async block(store) {
    const fd = openSync(join(store, file), 'r');
    // The machine may still be tidying the store after its last save.
    while (!tryLock(fd, 'exclusive')) await sleep(5);
    return async () => closeSync(fd);
  },
});

const transaction: Obstacle = {
  description: 'a transaction of another process',
  file: 'store.db',
  async block(store) {
    const script = `
      import { Database } from './dist/test/sqlite.js';
      const database = new Database(${JSON.stringify(join(store, 'store.db'))});
      database.exec('BEGIN IMMEDIATE');
      console.log('begun');
      process.stdin.resume().once('end', () => database.close());`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      cwd: projectRoot,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    return async () => {
      const ended = once(child, 'exit');
      child.stdin.end();
      await ended;
    };
  },
};

const SAVE_OBSTACLES = [lockOf('lock'), lockOf('index.lock'), transaction];
const RESTORE_OBSTACLES = [lockOf('lock'), lockOf('index.lock')];

describe('a machine that waits for', function () {
  this.timeout(120_000);
  let world: World;
  let release: () => Promise<void>;
  before(function () {
    requireKvm(this);
  });
  beforeEach(() => {
    world = new World();
    release = async () => {};
  });
  afterEach(async () => {
    await release();
    await world.end();
  });

  const start = (name: string) =>
    world.json<{ pid: number }>(
      ...['start', '--kernel', probe('probe.elf'), '--memory', '32M', '--detach', '--name', name],
    );

  /** A machine with a snapshot, and a command whose second save waits. */
  async function waiting(
    obstacle: Obstacle,
  ): Promise<{ pid: number; saving: Promise<Ran>; isOver: () => boolean }> {
    const { pid } = await start('a');
    await world.json('save', 'a');
    release = await obstacle.block(world.store);
    let over = false;
    const saving = ending(world.spawn('save', 'a', '--json')).finally(() => {
      over = true;
    });
    await hasOpen(pid, join(world.store, obstacle.file));
    return { pid, saving, isOver: () => over };
  }
  const errorOf = ({ status, stdout }: Ran): string => (status === 0 ? '' : JSON.parse(stdout).error.code);

  for (const obstacle of SAVE_OBSTACLES)
    describe(obstacle.description, () => {
      it('answers meanwhile, and completes its save afterwards', async () => {
        const { saving, isOver } = await waiting(obstacle);
        const [row] = await world.json<{ state: string }[]>('ps');
        assert.equal(row!.state, 'running');
        await world.ask('a', 'cpus', /^CPUS \d+$/);
        assert.equal(isOver(), false, 'the save waited all the time');
        await release();
        release = async () => {};
        const saved = await saving;
        assert.equal(saved.status, 0, saved.stdout + saved.stderr);
        assert.equal((await world.json<unknown[]>('ls')).length, 2);
      });

      it('can be stopped, which abandons its save and says so', async () => {
        const { pid, saving } = await waiting(obstacle);
        const stopped = await world.json('stop', 'a', '--timeout', '0.1');
        assert.deepEqual([stopped.reason, stopped.lostSaves], ['timedOut', 1]);
        assert.equal(alive(pid), false);
        assert.equal(errorOf(await saving), 'MACHINE_GONE');
        assert.deepEqual(world.machines(), []);
      });

      it('ends at SIGTERM, which abandons its save', async () => {
        const { pid, saving } = await waiting(obstacle);
        process.kill(pid, 'SIGTERM');
        await gone(pid);
        assert.equal(errorOf(await saving), 'MACHINE_GONE');
        assert.deepEqual(world.machines(), []);
        await release();
        release = async () => {};
        await world.json('gc');
        assert.equal((await world.json<{ problems: unknown[] }>('check', '--read-data')).problems.length, 0);
        assert.equal((await world.json<unknown[]>('ls')).length, 1);
      });
    });

  it('a lock does not save when the command is interrupted, and can save again', async () => {
    await start('a');
    await world.json('save', 'a');
    release = await lockOf('index.lock').block(world.store);
    const child = world.spawn('save', 'a');
    const saving = ending(child);
    const [{ pid }] = (await world.json<[{ pid: number }]>('ps'))!;
    await hasOpen(pid, join(world.store, 'index.lock'));
    child.kill('SIGINT');
    const { status, stderr } = await saving;
    assert.equal(status, null, 'it ended by the signal');
    assert.match(stderr, /^The save is cancelled, unless it was already committed/);
    await release();
    release = async () => {};
    const next = await world.json<{ id: string }>('save', 'a');
    const all = await world.json<{ id: string }[]>('ls');
    assert.equal(all.length, 2);
    assert.ok(all.some(({ id }) => id === next.id));
    assert.match(
      readFileSync(join(world.runDir, 'livesnap/a/log'), 'utf8'),
      /a save failed: the save was cancelled: its client disconnected/,
    );
  });

  for (const [obstacle, way] of RESTORE_OBSTACLES.flatMap(
    (each) =>
      [
        [each, 'SIGTERM'],
        [each, 'stop'],
      ] as const,
  ))
    it(`${obstacle.description} while it is restored answers, and ends at ${way}`, async () => {
      await start('a');
      const { id } = await world.json<{ id: string }>('save', 'a', '--then', 'stop');
      release = await obstacle.block(world.store);
      const directory = await new RunDirectory(join(world.runDir, 'livesnap'), 'b').claim();
      const before = children();
      const origin = { kind: 'restore', from: world.store, snapshot: id, clock: 'host' } as const;
      const refused = assert.rejects(
        launch(directory, {
          storeDir: world.store,
          port: null,
          overlayDir: null,
          starter: { lines: [], prompt: null },
          origin,
        }),
        {
          code: 'MACHINE_GONE',
          message: 'the machine b was stopped before it ran',
        },
      );
      let pid: number | undefined;
      while (pid === undefined) {
        await sleep(5);
        pid = children().find((child) => !before.includes(child));
      }
      await hasOpen(pid, join(world.store, obstacle.file));
      await assert.rejects(new MachineClient(directory).describe(), {
        code: 'NOT_POSSIBLE_NOW',
        message: 'the machine is starting',
      });
      if (way === 'SIGTERM') process.kill(pid, 'SIGTERM');
      else assert.equal((await world.json('stop', 'b')).reason, 'starting');
      await refused;
      assert.equal(alive(pid), false);
      assert.deepEqual(world.machines(), []);
    });
});
