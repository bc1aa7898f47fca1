/** The library in a program: `import { connect } from 'livesnap'`. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, copyFileSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import ts from 'typescript';
import { Host } from '../../src/host/host.js';
import { connect, LivesnapError, type Machine, type StartOptions } from '../../src/host/index.js';
import { WaitingProcess } from '../../src/machine/waiting-process.js';
import { tryLock } from '../../src/native/locks.js';
import { projectRoot } from '../../src/native/project-root.js';
import { probe } from '../kvm/kvm.js';
import { limit } from '../timeouts.js';
import { libraryWorldOfEachTest, type World } from './cli.js';

const hasCode =
  (code: string) =>
  (error: unknown): boolean =>
    error instanceof LivesnapError && error.code === code;

describe('the library', function () {
  this.timeout(limit(60_000));
  let world: World;
  let host: Host;
  libraryWorldOfEachTest((made) => {
    world = made;
  });
  beforeEach(async () => {
    host = await connect();
  });

  const start = (name: string, more = {}): Promise<Machine> =>
    host.start({ kernel: probe('probe.bzImage'), memoryBytes: 32 << 20, name, ...more });

  it('gives a machine open files as disks, whatever their paths name', async () => {
    const images = ['one', 'two'].map((name) => join(world.dir, name));
    for (const path of images) writeFileSync(path, path.at(-1)!.repeat(4096));
    const fds = images.map((path) => openSync(path, 'r'));
    for (const path of images) rmSync(path);
    const paths = [images[1]!, '/nowhere/image'];
    writeFileSync(paths[0]!, 'x'.repeat(512));
    const disk = (i: number) =>
      ({ source: { kind: 'file', path: paths[i]!, fd: fds[i]! }, mode: i === 0 ? 'ro' : 'cow' }) as const;
    const machine = await start('web', { disks: [disk(0), disk(1)] });
    for (const fd of fds) closeSync(fd);
    await machine.save({ tags: ['disks'], then: 'stop' });
    for (const i of [0, 1]) {
      const file = join(world.dir, `disk${i}`);
      await world.json('disk', 'disks', String(i), file);
      assert(readFileSync(file).equals(Buffer.alloc(4096, images[i]!.at(-1)!)), `disk${i}`);
    }
    const { machine: saved } = (await host.store.details('disks')) as { machine: { config: StartOptions } };
    assert.deepEqual(
      saved.config.disks!.map(({ source }) => source),
      paths.map((path) => ({ kind: 'file', path })),
    );
  });

  it('starts a machine, types into it, saves it and forks it', async () => {
    const machine = await start('web', { labels: { course: 'os' } });
    const console = await machine.console();
    await console.write('fill 1 1\n');
    assert.match(await console.waitFor(/^OK fill/), /^OK fill: 1 of/);
    await console.write('sum 1\n');
    const sum = await console.waitFor(/^SUM/);
    await console.close();

    const { id } = await machine.save({ tags: ['ready', 'first'] });
    assert.deepEqual((await world.json<{ tags: string[] }>('show', id)).tags, ['first', 'ready']);
    const forked = await host.fork(machine, { count: 3, name: 'copy' });
    const copies = forked.map((each) => {
      if ('error' in each) throw each.error;
      return each.machine;
    });
    assert.deepEqual(
      copies.map(({ name }) => name),
      ['copy-1', 'copy-2', 'copy-3'],
    );
    for (const copy of copies) {
      assert.deepEqual(copy.about.labels, { course: 'os' });
      await using attached = await copy.console();
      await attached.write('sum 1\n');
      assert.equal(await attached.waitFor(/^SUM/), sum);
    }
    const all = await host.machines();
    assert.deepEqual(
      all.map(({ name, state }) => `${name} ${state}`),
      ['copy-1 running', 'copy-2 running', 'copy-3 running', 'web running'],
    );
    assert.deepEqual(
      (await host.machines({ labels: { course: null } })).map(({ name }) => name),
      ['copy-1', 'copy-2', 'copy-3', 'web'],
    );
    assert.deepEqual(await host.machines({ labels: { course: 'db' } }), []);
    await Promise.all([machine, ...copies].map((each) => each.stop({ force: true })));
    assert.deepEqual(world.machines(), []);
  });

  it('runs the example of docs/library.md, and nothing is left of it', async () => {
    const page = readFileSync(join(projectRoot, 'docs/library.md'), 'utf8');
    const [, example] = /```ts\n(.*?)```/s.exec(page)!;
    const { ES2022 } = ts.ScriptTarget;
    const { outputText } = ts.transpileModule(example!, {
      compilerOptions: { target: ES2022, module: ts.ModuleKind.ESNext },
    });
    // A file of the package may import the package by its name.
    const file = join(projectRoot, 'dist', `example-${process.pid}.mjs`);
    writeFileSync(file, outputText);
    const cwd = join(world.dir, 'example');
    mkdirSync(cwd);
    copyFileSync(probe('probe.bzImage'), join(cwd, 'probe.bzImage'));
    copyFileSync(join(projectRoot, 'package.json'), join(cwd, 'package.json'));
    try {
      execFileSync(process.execPath, [file], { cwd, env: world.env });
    } finally {
      rmSync(file);
    }
    assert.deepEqual(world.machines(), []);
    assert.equal((await world.json<{ tags: string[] }[]>('ls'))[0]!.tags[0], 'ready');
  });

  it('stops what it started and did not detach, when it is disposed of', async () => {
    {
      await using machine = await start('short');
      const kept = await start('kept');
      kept.detach();
      await kept[Symbol.asyncDispose]();
      assert.equal((await machine.info()).state, 'running');
    }
    assert.deepEqual(world.machines(), ['kept']);
    await using found = await host.machine('kept');
    await found.pause();
    assert.equal((await found.info()).state, 'paused');
    await found.resume();
    const byId = await host.machine(found.id.slice(0, 12));
    assert.equal(byId.name, 'kept');
    await byId.stop();
  });

  it('knows a machine by its ID: another one of the same name is not touched', async () => {
    const first = await start('same');
    await first.stop({ force: true });
    const second = await start('same');
    for (const call of [() => first.info(), () => first.pause(), () => first.save(), () => first.console()])
      await assert.rejects(call(), hasCode('MACHINE_GONE'));
    assert.equal((await first.stop()).state, 'stopped', 'it has ended already');
    assert.equal((await second.info()).state, 'running');
    await second.stop({ force: true });
  });

  it('waits for the end of a machine, and tells how it ended', async () => {
    const machine = await start('ending');
    const ended = machine.wait();
    const console = await machine.console();
    await console.write('halt\n');
    assert.equal((await ended).kind, 'halted');
    await assert.rejects(console.waitFor(/^NEVER/), hasCode('MACHINE_GONE'));
    await assert.rejects(host.machine('ending'), hasCode('NO_SUCH_MACHINE'));
  });

  it('ends a machine after its lifetime', async () => {
    const machine = await start('brief', { lifetimeMs: 60_000 });
    assert.notEqual((await machine.info()).endsAt, null);
    const ended = machine.wait();
    await machine.setLifetime(1);
    assert.equal((await ended).kind, 'stopped');
  });

  it('cancels by a signal what has not happened yet', async () => {
    const reason = new Error('no longer wanted');
    const aborted = AbortSignal.abort(reason);
    const isReason = (error: unknown): boolean => error === reason;
    await assert.rejects(start('never', { signal: aborted }), isReason);
    const cancelled = new AbortController();
    const starting = start('never', { signal: cancelled.signal });
    setTimeout(() => cancelled.abort(reason), 10);
    await assert.rejects(starting, isReason);
    assert.deepEqual(world.machines(), []);

    await using machine = await start('web');
    const console = await machine.console();
    await assert.rejects(console.waitFor(/^NEVER/, { timeoutMs: 1 }), hasCode('TIMED_OUT'));
    await assert.rejects(console.waitFor(/^NEVER/, { signal: AbortSignal.timeout(1) }), {
      name: 'TimeoutError',
    });
    await console.write('cpus\n');
    assert.match(await console.waitFor(/^CPUS/), /^CPUS \d+$/, 'nothing was lost meanwhile');
    const { id } = await machine.save();
    await console.close();
    await assert.rejects(machine.save({ signal: aborted }), isReason);
    // While another process has the store to itself, a save cannot be committed before it is cancelled.
    const lock = openSync(join(world.store, 'lock'), 'r+');
    while (!tryLock(lock, 'exclusive')) await sleep(5);
    const during = new AbortController();
    const saving = machine.save({ signal: during.signal });
    setTimeout(() => during.abort(reason), 100);
    await assert.rejects(saving, isReason);
    closeSync(lock);
    while ((await machine.info()).state !== 'running') await sleep(5);
    const left = await world.json<{ id: string }[]>('ls');
    assert.deepEqual(
      left.map((snapshot) => snapshot.id),
      [id],
    );
  });

  it('does nothing when the signal was aborted before the call', async () => {
    const reason = new Error('no longer wanted');
    const aborted = { signal: AbortSignal.abort(reason) };
    const isReason = (error: unknown): boolean => error === reason;
    await using machine = await start('web');
    for (const call of [
      () => machine.info(aborted),
      () => machine.pause(aborted),
      () => machine.stop({ ...aborted, force: true }),
      () => machine.wait(aborted),
      () => machine.setLifetime(1, aborted),
      () => machine.setLabels({ course: 'os' }, aborted),
      () => machine.console(aborted),
      () => host.fork(machine, aborted),
    ])
      await assert.rejects(call(), isReason, call.toString());
    await sleep(300); // what was sent has happened by then
    const { state, endsAt, labels } = await machine.info();
    assert.deepEqual({ state, endsAt, labels }, { state: 'running', endsAt: null, labels: {} });
    assert.deepEqual(await world.json('ls').catch(() => []), []);
  });

  it('starts nothing when the signal is aborted while the process of the machine is spawned', async () => {
    const reason = new Error('no longer wanted');
    const cancelled = new AbortController();
    const cancelling = new Host(world.store, async (kind) => {
      cancelled.abort(reason);
      return new WaitingProcess(kind);
    });
    const starting = cancelling.start({ kernel: probe('probe.bzImage'), signal: cancelled.signal });
    await assert.rejects(starting, (error: unknown) => error === reason);
    assert.deepEqual(world.machines(), []);
  });

  it('stops the machines of a fork that is cancelled', async () => {
    const reason = new Error('no longer wanted');
    const cancelled = new AbortController();
    await using machine = await start('web');
    const { id } = await machine.save();
    let spawned = 0;
    const cancelling = new Host(world.store, async (kind) => {
      if (++spawned === 5) cancelled.abort(reason);
      return new WaitingProcess(kind);
    });
    const forking = cancelling.fork(id, { count: 6, name: 'copy', signal: cancelled.signal });
    await assert.rejects(forking, (error: unknown) => error === reason);
    assert.deepEqual(world.machines(), ['web']);
  });

  it('refuses wrong options before it starts anything', async () => {
    for (const [code, options] of [
      ['NO_SUCH_FILE', { kernel: '/no/kernel' }],
      ['BAD_IMAGE', { kernel: '/etc' }],
      ['USAGE', { memoryBytes: 4097 }],
      ['USAGE', { memoryBytes: Number.NaN }],
      ['USAGE', { cpus: 0 }],
      ['USAGE', { labels: { 'a b': 'c' } }],
      ['USAGE', { lifetimeMs: 0 }],
      ['USAGE', { name: '../x' }],
    ] as const)
      await assert.rejects(start('wrong', options), hasCode(code), JSON.stringify(options));
    // As a program in JavaScript may call it.
    for (const call of [
      () => host.start({} as StartOptions),
      () => host.start(undefined as never),
      () => start('wrong', { disks: 'disk.img' }),
      () => start('wrong', { disks: ['disk.img'] }),
      () => start('wrong', { nets: 'user' }),
      () => host.restore(undefined as never),
      () => host.restore('nothing', null as never),
      () => host.fork(null as never),
      () => host.machine(undefined as never),
      () => connect(world.dir as never),
      () => connect({ store: 5 as never }),
    ])
      await assert.rejects(call(), hasCode('USAGE'), call.toString());
    await assert.rejects(host.fork('nothing', { count: 0 }), hasCode('USAGE'));
    await assert.rejects(host.restore('nothing'), hasCode('NO_SUCH_FILE'), 'there is no store');
    assert.deepEqual(world.machines(), []);
  });

  it('refuses wrong arguments of a machine and of its console, and keeps both', async () => {
    await using machine = await start('web');
    await using console = await machine.console();
    for (const call of [
      () => machine.stop({ timeoutMs: '30000' as never }),
      () => machine.stop({ timeoutMs: Number.NaN }),
      () => console.waitFor('TICK' as never),
      () => console.waitFor(/TICK/, { timeoutMs: 'x' as never }),
      () => console.write(5 as never),
    ])
      await assert.rejects(call(), hasCode('USAGE'), call.toString());
    await console.write('fill 1 1\n');
    assert.match(await console.waitFor(/^OK fill/), /^OK fill/);
  });
});
