import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { type IncomingMessage, type RequestOptions, request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LivesnapError } from '../../../src/errors.js';
import { findMachine, MachineClient } from '../../../src/machine/client.js';
import { ID_HEADER, type SaveJob } from '../../../src/machine/control-api.js';
import { ControlServer } from '../../../src/machine/control-server.js';
import type { StarterRequest } from '../../../src/machine/launch-messages.js';
import { AT_ONCE, MachineService } from '../../../src/machine/machine-service.js';
import { type ClaimedRunDirectory, RunDirectory } from '../../../src/machine/run-directory.js';
import { FakeMachine, FakeStore, failure } from './fake-machine.js';

const TOKEN = 't'.repeat(43);

const hasCode = (code: string) => (error: unknown) => error instanceof LivesnapError && error.code === code;

interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  trailers: IncomingMessage['trailers'];
  text: string;
}

function ask(options: RequestOptions, body?: string | Buffer): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ agent: false, ...options }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part) => parts.push(part));
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode!,
          headers: response.headers,
          trailers: response.trailers,
          text: Buffer.concat(parts).toString('latin1'),
        }),
      );
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

const nextData = (stream: IncomingMessage): Promise<string> =>
  new Promise((resolve) => stream.once('data', (part: Buffer) => resolve(part.toString('latin1'))));

async function textOf(stream: IncomingMessage): Promise<string> {
  let text = '';
  for await (const part of stream as AsyncIterable<Buffer>) text += part.toString('latin1');
  return text;
}

describe('the control API', () => {
  let base: string;
  let root: string;
  let directory: ClaimedRunDirectory;
  let machine: FakeMachine;
  let server: ControlServer;
  let service: MachineService;
  let closedStores: number;
  /** What the opening of a store waits for. */
  let storeGate: Promise<void>;
  let refuseStore: (error: Error) => void;
  const logged: string[] = [];
  let starter: StarterRequest | undefined;

  async function open(
    runRoot: string,
    port: number | null = null,
    starterDone: Promise<void> = Promise.resolve(),
  ): Promise<number> {
    root = runRoot;
    directory = await new RunDirectory(root, 'vm').claim();
    machine = new FakeMachine();
    server = new ControlServer();
    closedStores = 0;
    storeGate = Promise.resolve();
    refuseStore = () => {};
    await server.listenUnix(directory.socket);
    const actual = port === null ? 0 : await server.listenLoopback(port, TOKEN);
    service = new MachineService(machine, {
      directory,
      server,
      storeDir: '/default/store',
      port: null,
      stores: {
        open: async (dir) => {
          await storeGate;
          if (dir === '/newer') throw new LivesnapError('NEWER_FORMAT', 'too new');
          return new FakeStore(dir, () => closedStores++);
        },
        cancelWaits: () => refuseStore(new LivesnapError('STORE_BUSY', 'the wait was cancelled')),
      },
      log: (sentence) => logged.push(sentence),
      ...(starter === undefined ? {} : { starter }),
      starterDone,
      closeGraceMs: 100,
    });
    await service.open();
    assert.deepEqual(machine.done.splice(0), ['resume'], 'the guest runs when it can be asked');
    return actual;
  }
  const at = (path: string, method = 'GET', headers = {}): RequestOptions => ({
    socketPath: directory.socket,
    path,
    method,
    headers,
  });

  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), 'livesnap-api-'));
    root = join(base, 'r');
  });
  afterEach(async () => {
    await service.stop(AT_ONCE);
    await service.ended;
    directory.release();
    rmSync(base, { recursive: true, force: true });
  });

  it('describes the machine', async () => {
    await open(root);
    const answer = await ask(at('/machine'));
    assert.equal(answer.status, 200);
    const body = JSON.parse(answer.text);
    assert.deepEqual(
      { ...body, startedAt: null, id: null, cpuSeconds: 0, touchedBytes: 0 },
      {
        id: null,
        name: 'vm',
        labels: {},
        pid: process.pid,
        state: 'running',
        memoryBytes: 64 << 20,
        cpus: 2,
        startedAt: null,
        endsAt: null,
        snapshot: null,
        store: '/default/store',
        notices: ['a notice'],
        nets: [],
        problem: null,
        diskSave: null,
        saves: [],
        touchedBytes: 0,
        cpuSeconds: 0,
        dirtyBytes: null,
      },
    );
    assert.equal(new Date(body.startedAt).toISOString(), body.startedAt);
    assert.match(body.id, /^[0-9a-f]{32}$/);
    assert.ok(body.cpuSeconds > 0);
    assert.ok(Number.isSafeInteger(body.touchedBytes));
  });

  it('counts what has changed since the last save when the machine is described', async () => {
    await open(root);
    machine.snapshot = 'b'.repeat(32);
    machine.dirtyBytes = 8192;
    const meant = { [ID_HEADER]: service.id };
    await ask(at('/console', 'POST', meant), 'input');
    assert.equal(machine.counts, 0, 'nobody has asked');
    const described = async () => JSON.parse((await ask(at('/machine', 'GET', meant))).text);
    assert.equal((await described()).dirtyBytes, 8192);
    machine.dirtyBytes = 0;
    await ask(at('/save', 'POST', meant));
    assert.equal((await described()).dirtyBytes, 0, 'a save ends the time that a count holds');
  });

  it('changes labels and lifetime, and leaves what is not given', async () => {
    await open(root);
    const client = await findMachine('vm', root);
    const { id } = await client.describe();
    const labelled = await client.change({ labels: { course: 'os', 'team/seat': '7' }, lifetimeMs: 60_000 });
    assert.deepEqual(labelled.labels, { course: 'os', 'team/seat': '7' });
    const leftMs = Date.parse(labelled.endsAt!) - Date.now();
    assert(leftMs > 0 && leftMs <= 60_000, `${leftMs} ms are left`);
    assert.deepEqual((await directory.readRecord())?.labels, labelled.labels);
    const endless = await client.change({ lifetimeMs: null });
    const { cpuSeconds } = labelled; // it grows
    assert.deepEqual({ ...endless, cpuSeconds }, { ...labelled, endsAt: null });
    assert.equal(endless.endsAt, null);
    assert.equal(endless.id, id);
    for (const [field, body] of [
      ['lifetimeMs', { lifetimeMs: 0 }],
      ['lifetimeMs', { lifetimeMs: '10m' }],
      ['labels', { labels: { 'a b': 'c' } }],
      ['labels', { labels: { a: 1 } }],
      ['labels', { labels: { a: 'line\nbreak' } }],
      ['labels', { labels: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, ''])) }],
      ['name', { name: 'other' }],
    ] as const)
      await assert.rejects(
        client.change(body as never),
        (error: LivesnapError) => error.code === 'USAGE' && error.message.includes(field),
      );
    assert.deepEqual(
      { ...(await client.describe()), cpuSeconds },
      { ...endless, cpuSeconds },
      'nothing has changed',
    );
  });

  it('ends a machine whose lifetime has ended', async () => {
    await open(root);
    await (await findMachine('vm', root)).change({ lifetimeMs: 1 });
    await service.ended;
    assert(logged.includes('its lifetime has ended'), logged.join());
  });

  it('pauses and resumes', async () => {
    await open(root);
    assert.deepEqual(JSON.parse((await ask(at('/pause', 'POST'))).text), { name: 'vm', state: 'paused' });
    const client = await findMachine('vm', root);
    assert.equal((await client.describe()).state, 'paused');
    assert.deepEqual(await client.resume(), { name: 'vm', state: 'running' });
    assert.deepEqual(machine.done, ['pause', 'resume']);
  });

  it('answers a stop, then removes the run directory', async () => {
    await open(root);
    const client = await findMachine('vm', root);
    const console = await client.openConsole();
    await client.stop();
    assert.deepEqual(await service.ended, { kind: 'stopped' });
    assert.deepEqual(readdirSync(root), []);
    assert.equal(await textOf(console), '');
    assert.deepEqual(MachineClient.endOf(console), { kind: 'stopped', error: null });
    await assert.rejects(client.describe(), hasCode('MACHINE_GONE'));
    await assert.rejects(findMachine('vm', root), hasCode('NO_SUCH_MACHINE'));
  });

  describe('of a machine that has ended', () => {
    /** Ends the machine before its starter has joined. */
    async function openAndEnd(): Promise<{ client: MachineClient; letGo: () => void }> {
      let letGo = () => {};
      await open(
        root,
        null,
        new Promise((resolve) => {
          letGo = resolve;
        }),
      );
      machine.say('last words\n');
      machine.finish({ kind: 'reset' });
      return { client: await findMachine('vm', root), letGo };
    }

    it('shows its starter the last output and the end, then ends its process', async () => {
      const { client, letGo } = await openAndEnd();
      const console = await client.openConsole();
      assert.equal(await textOf(console), 'last words\n');
      assert.deepEqual(MachineClient.endOf(console), { kind: 'reset', error: null });
      assert.equal((await client.describe()).state, 'stopped');
      letGo();
      assert.deepEqual(await service.ended, { kind: 'reset' });
      assert.deepEqual(readdirSync(root), []);
    });

    it('answers every operation with 410', async () => {
      const { letGo } = await openAndEnd();
      for (const [path, body] of [
        ['/pause', ''],
        ['/resume', ''],
        ['/save', '{}'],
        ['/console', 'x'],
      ] as const) {
        const answer = await ask(at(path, 'POST'), body);
        assert.equal(answer.status, 410, `${path}: ${answer.text}`);
        assert.equal(JSON.parse(answer.text).error.code, 'MACHINE_GONE');
      }
      letGo();
    });

    it('does not wait for its starter after a stop', async () => {
      const { client } = await openAndEnd();
      await client.stop();
      assert.deepEqual(await service.ended, { kind: 'reset' });
    });

    it('reports the end of a machine whose process is still ending', async () => {
      await open(root);
      const client = await findMachine('vm', root);
      await server.close(0);
      await assert.rejects(client.describe(), hasCode('MACHINE_GONE'));
      await assert.rejects(
        client.save({ store: null, tags: [], then: null }, () => {}),
        hasCode('MACHINE_GONE'),
      );
      await assert.rejects(client.openConsole(), hasCode('MACHINE_GONE'));
    });
  });

  it('tells viewers how much output was dropped', async () => {
    await open(root);
    machine.say('before');
    const console = await (await findMachine('vm', root)).openConsole();
    machine.say('after', 12345);
    await service.stop(AT_ONCE);
    assert.match(await textOf(console), /^before\r\n\[livesnap: 12345 bytes .*\]\r\nafter$/);
  });

  it('keeps the run directory of a failed machine, with the reason', async () => {
    await open(root);
    const console = await (await findMachine('vm', root)).openConsole();
    machine.finish(failure('an instruction could not be run at 0x1234 — ü'));
    await service.ended;
    await textOf(console);
    assert.equal(
      MachineClient.endOf(console)?.error?.message,
      'an instruction could not be run at 0x1234 — ü',
    );
    assert.equal((await directory.readRecord())?.failure, 'an instruction could not be run at 0x1234 — ü');
    directory.release();
    await assert.rejects(findMachine('vm', root), /failed: an instruction could not be run at 0x1234/);
    directory = await new RunDirectory(root, 'vm').claim();
    assert.equal(existsSync(directory.recordFile), false);
  });

  it('saves to the given store, with progress on request', async () => {
    await open(root);
    const plain = await ask(at('/save', 'POST'), '{}');
    assert.equal(plain.status, 200);
    assert.equal(JSON.parse(plain.text).pages, 4);
    const client = await findMachine('vm', root);
    const seen: unknown[] = [];
    const result = await client.save({ store: '/s', tags: ['t', 'u'], then: 'pause' }, (done, total) =>
      seen.push([done, total]),
    );
    assert.deepEqual(result.tags, ['t', 'u']);
    assert.deepEqual(seen, [[1, 2]]);
    assert.deepEqual(machine.done, ['save /default/store vm [] null', 'save /s vm [t,u] pause']);
    assert.equal(closedStores, 2);
    assert.equal((await client.describe()).snapshot, 'a'.repeat(32));
    assert.equal((await directory.readRecord())?.snapshot, 'a'.repeat(32));
  });

  it('goes on with a save without its client, shows it, and can cancel it', async () => {
    await open(root);
    const client = await findMachine('vm', root);
    const asked = await ask(at('/save', 'POST', { prefer: 'wait=9, respond-async' }), '{"tags":["t"]}');
    assert.equal(asked.status, 202);
    assert.deepEqual([JSON.parse(asked.text).number, JSON.parse(asked.text).tags], [1, ['t']]);
    const ended = async (number: number): Promise<SaveJob> => {
      for (;;) {
        const job = (await client.describe()).saves.find((each) => each.number === number)!;
        if (job.state !== 'running') return job;
      }
    };
    const first = await ended(1);
    assert.deepEqual(
      [first.state, first.result!.pages, first.progress],
      ['done', 4, { doneBytes: 1, totalBytes: 2 }],
    );
    let open2 = () => {};
    machine.saveGate = new Promise((resolve) => {
      open2 = resolve;
    });
    await client.startSave({ store: null, tags: [], then: null });
    assert.equal((await ask(at('/save?number=2', 'DELETE'))).status, 200);
    open2();
    const second = await ended(2);
    assert.deepEqual([second.state, second.error!.message], ['cancelled', 'the save was cancelled']);
    machine.saveError = new LivesnapError('NO_SPACE', 'the disk is full');
    await client.startSave({ store: null, tags: [], then: null });
    assert.equal((await ended(3)).error!.code, 'NO_SPACE');
    await client.removeSave(1);
    assert.deepEqual(
      (await client.describe()).saves.map(({ number }) => number),
      [2, 3],
    );
    await assert.rejects(client.removeSave(1), hasCode('NO_SUCH_JOB'));
    for (const query of [
      '',
      '?number=',
      '?number=0',
      '?number=1e3',
      '?number=-1',
      '?number=99999999999999999',
    ])
      assert.equal((await ask(at(`/save${query}`, 'DELETE'))).status, 400, query);
  });

  it('remembers a bounded number of saves', async () => {
    await open(root);
    const client = await findMachine('vm', root);
    for (let i = 0; i < 20; i++) await client.save({ store: null, tags: [], then: null }, () => {});
    assert.deepEqual(
      (await client.describe()).saves.map(({ number }) => number),
      [13, 14, 15, 16, 17, 18, 19, 20],
    );
    let letGo = () => {};
    machine.saveGate = new Promise((resolve) => {
      letGo = resolve;
    });
    for (let i = 0; i < 64; i++) await client.startSave({ store: null, tags: [], then: null });
    await assert.rejects(
      client.startSave({ store: null, tags: [], then: null }),
      hasCode('NOT_POSSIBLE_NOW'),
    );
    letGo();
  });

  it('answers a save that it cannot record, and logs that', async () => {
    await open(root);
    const client = await findMachine('vm', root);
    // A directory is in the way of the note.
    mkdirSync(`${directory.recordFile}.new`);
    const { id } = await client.save({ store: null, tags: [], then: null }, () => {});
    assert.equal((await client.describe()).snapshot, id);
    assert.match(
      logged.join('\n'),
      /the record was not updated: cannot write to the run directory .*: EISDIR/,
    );
    machine.finish(failure('the guest is broken'));
    assert.equal((await service.ended).kind, 'failed');
  });

  it('answers a save that ends the machine, before the process ends', async () => {
    await open(root);
    const client = await findMachine('vm', root);
    const result = await client.save({ store: null, tags: [], then: 'stop' }, () => {});
    assert.equal(result.pages, 4);
    await service.ended;
    assert.deepEqual(readdirSync(root), []);
  });

  it('reports the error of a save in both formats, and closes the store', async () => {
    await open(root);
    machine.saveError = new LivesnapError('NO_SPACE', 'the disk is full', { hint: 'Free some.' });
    const plain = await ask(at('/save', 'POST'), '');
    assert.equal(plain.status, 507);
    assert.deepEqual(JSON.parse(plain.text), {
      error: { code: 'NO_SPACE', message: 'the disk is full', hint: 'Free some.' },
    });
    const client = await findMachine('vm', root);
    const save = (store: string | null) => client.save({ store, tags: [], then: null }, () => {});
    await assert.rejects(save(null), hasCode('NO_SPACE'));
    assert.equal(closedStores, 2);
    await assert.rejects(save('/newer'), hasCode('NEWER_FORMAT'));
  });

  it('answers while a save waits for the store, and stops in its own time, which cancels the save', async () => {
    await open(root);
    storeGate = new Promise((_, reject) => {
      refuseStore = reject;
    });
    const client = await findMachine('vm', root);
    const saving = client.save({ store: null, tags: [], then: null }, () => {});
    const refused = assert.rejects(saving, hasCode('MACHINE_GONE'));
    await client.describe();
    const stopped = { name: 'vm', state: 'stopped', how: 'ended', reason: 'timedOut', lostSaves: 1 };
    assert.deepEqual(await client.stop({ timeoutMs: 50 }), stopped);
    await refused;
    await service.ended;
    assert.deepEqual(readdirSync(root), []);
    assert.deepEqual(machine.done, ['stop']);
  });

  it('asks the guest to power off, and ends it only if it does not', async () => {
    await open(root);
    const client = await findMachine('vm', root);
    machine.hasPowerButton = true;
    await client.pause();
    machine.done.length = 0;
    const stopping = client.stop();
    while (!machine.done.includes('resume')) await new Promise((resolve) => setImmediate(resolve));
    machine.finish({ kind: 'halted' });
    const result = { name: 'vm', state: 'stopped', how: 'poweredOff', reason: null, lostSaves: 0 };
    assert.deepEqual(await stopping, result);
    assert.deepEqual(machine.done, ['pressPowerButton', 'resume'], 'a paused guest is resumed');
  });

  it('ends a guest that does not power off in time, or does not listen for the button', async () => {
    await open(root);
    const client = await findMachine('vm', root);
    machine.hasPowerButton = true;
    const { how, reason } = await client.stop({ timeoutMs: 20 });
    assert.deepEqual(
      [how, reason, machine.done],
      ['ended', 'timedOut', ['pressPowerButton', 'resume', 'stop']],
    );
    await service.ended;
    directory.release();
    await open(join(base, 's'));
    const other = await findMachine('vm', root);
    assert.equal((await other.stop()).reason, 'noPowerButton');
    assert.deepEqual(machine.done, ['pressPowerButton', 'stop']);
  });

  it('completes a save in progress before it asks the guest to power off', async () => {
    await open(root);
    const client = await findMachine('vm', root);
    const openGate = machine.holdSaves();
    const saving = client.save({ store: null, tags: [], then: null }, () => {});
    while (machine.done.length === 0) await new Promise((resolve) => setImmediate(resolve));
    const stopping = client.stop();
    await client.describe();
    openGate();
    assert.equal((await saving).id, 'a'.repeat(32));
    assert.equal((await stopping).lostSaves, 0);
    assert.deepEqual(machine.done.slice(1), ['pressPowerButton', 'stop']);
  });

  it('cancels a save whose client disconnects', async () => {
    await open(root);
    for (const headers of [{}, { accept: 'application/x-ndjson' }]) {
      let openGate = () => {};
      machine.saveGate = new Promise((resolve) => {
        openGate = resolve;
      });
      logged.length = 0;
      machine.done.length = 0;
      const sent = request({ agent: false, ...at('/save', 'POST', headers) });
      sent.on('error', () => {});
      sent.end();
      while (machine.done.length === 0) await new Promise((resolve) => setImmediate(resolve));
      const next = (await findMachine('vm', root)).pause();
      sent.destroy();
      await new Promise((resolve) => setTimeout(resolve, 50)); // the server sees the end of the connection
      openGate();
      await next;
      assert.deepEqual(logged, ['a save failed: the save was cancelled: its client disconnected']);
      assert.equal(machine.snapshot, null);
    }
  });

  it('gives a save the last 64 KiB of output, and the starter lines that were not typed', async () => {
    starter = { lines: ['first', 'second', 'third'], prompt: null };
    await open(root);
    starter = undefined;
    machine.say(Buffer.alloc(70_000, 'x'));
    machine.say('\n$ ');
    while (machine.input.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    machine.say('first');
    const client = await findMachine('vm', root);
    await client.save({ store: null, tags: [], then: null }, () => {});
    const { history, starter: left, starterInLine } = machine.saved!;
    assert.equal(history.length, 64 * 1024);
    assert.equal(Buffer.from(history.subarray(-9)).toString(), 'x\n$ first');
    assert.deepEqual([Buffer.from(left).toString(), starterInLine], ['second\nthird', true]);
    machine.say('\r\n$ ');
    while (machine.input.length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(Buffer.concat(machine.input).toString(), 'first\rsecond\r');
    assert.ok(
      logged.every((sentence) => !/first|second|third/.test(sentence)),
      'a line may be a password',
    );
  });

  it('is stopped before it runs, but answers nothing else', async () => {
    root = base;
    directory = await new RunDirectory(root, 'vm').claim();
    let stops = 0;
    const starting = new ControlServer({ name: 'vm', onStop: () => stops++ });
    await starting.listenUnix(directory.socket);
    assert.equal((await ask(at('/stop'))).status, 405);
    assert.equal((await ask(at('/pause', 'POST'))).status, 503);
    assert.equal(stops, 0);
    const answer = await ask(at('/stop', 'POST'));
    assert.deepEqual(JSON.parse(answer.text), {
      ...{ name: 'vm', state: 'stopped', how: 'ended', reason: 'starting', lostSaves: 0 },
    });
    await starting.close(100);
    assert.equal(stops, 1);
    await directory.remove();
    directory.release();
    await open(join(base, 's'));
  });

  it('runs operations one after another, but stops by force at any time', async () => {
    await open(root);
    const client = await findMachine('vm', root);
    const openGate = machine.holdSaves();
    const saving = client.save({ store: null, tags: [], then: null }, () => {});
    while (machine.done.length === 0) await new Promise((resolve) => setImmediate(resolve));
    const pausing = client.pause();
    await client.describe();
    assert.equal(machine.state, 'running', 'the pause waits for the save');
    const stopping = client.stop({ force: true });
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.ok(existsSync(directory.path), 'the end waits for the save to be answered');
    openGate();
    await saving;
    await stopping;
    await assert.rejects(pausing, hasCode('MACHINE_GONE'));
    assert.deepEqual(
      machine.done.filter((what) => !what.startsWith('save')),
      ['stop'],
    );
  });

  it('carries console input and output unchanged, for several viewers', async () => {
    await open(root);
    machine.say('early ');
    const client = await findMachine('vm', root);
    const [first, second, third] = [
      await client.openConsole(),
      await client.openConsole(0),
      await client.openConsole(3),
    ];
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    machine.say(bytes);
    const posted = await ask(at('/console', 'POST'), bytes);
    assert.deepEqual(JSON.parse(posted.text), { bytes: 256 });
    assert.deepEqual(Buffer.concat(machine.input), bytes);
    await client.stop();
    assert.equal(await textOf(first), `early ${bytes.toString('latin1')}`);
    assert.equal(await textOf(second), bytes.toString('latin1'));
    assert.equal(await textOf(third), `ly ${bytes.toString('latin1')}`);
  });

  it('passes input to the guest as it arrives', async () => {
    await open(root);
    const client = await findMachine('vm', root);
    const console = await client.openConsole(0);
    const input = client.openInput();
    for (const word of ['one', 'two']) {
      input.write(word);
      while (!Buffer.concat(machine.input).toString().endsWith(word))
        await new Promise((resolve) => setImmediate(resolve));
      machine.say(word);
      assert.equal(await nextData(console), word);
    }
    input.end();
  });

  it('makes the sender wait while the guest does not read', async () => {
    await open(root);
    machine.room = 5000;
    const bytes = Buffer.from(Array.from({ length: 20_000 }, (_, i) => i % 251));
    const posted = ask(at('/console', 'POST'), bytes);
    while (machine.input.length === 0) await new Promise((resolve) => setImmediate(resolve));
    machine.room = 1e6;
    assert.deepEqual(JSON.parse((await posted).text), { bytes: 20_000 });
    assert.deepEqual(Buffer.concat(machine.input), bytes);
  });

  it('ends a waiting input request when the machine ends', async () => {
    await open(root);
    machine.room = 0;
    const posted = ask(at('/console', 'POST'), 'never read');
    await new Promise((resolve) => setTimeout(resolve, 30));
    const stopped = service.stop(AT_ONCE);
    assert.equal((await posted).status, 410);
    await stopped;
  });

  it('ends although a viewer does not read', async () => {
    await open(root);
    const viewer = connect(directory.socket);
    viewer.write('GET /console HTTP/1.1\r\nHost: x\r\n\r\n');
    viewer.pause();
    while (service.console.viewers === 0) await new Promise((resolve) => setImmediate(resolve));
    for (let i = 0; i < 8; i++) machine.say(Buffer.alloc(1 << 20));
    await service.stop(AT_ONCE);
    assert.deepEqual(await service.ended, { kind: 'stopped' });
    viewer.destroy();
  });

  it('refuses invalid requests with an error object', async () => {
    await open(root);
    const refused = async (
      expected: number,
      path: string,
      method: string,
      body?: string | Buffer,
    ): Promise<{ code: string; message: string; hint: string | null }> => {
      const answer = await ask(at(path, method), body);
      assert.equal(answer.status, expected, `${method} ${path} ${body?.slice(0, 50)}`);
      return JSON.parse(answer.text).error;
    };
    assert.match((await refused(404, '/nothing', 'GET')).message, /^No route for GET \/nothing$/);
    assert.equal((await refused(404, '/constructor', 'GET')).code, 'USAGE');
    assert.match((await refused(405, '/pause', 'GET')).message, /^No route for GET \/pause$/);
    const noJson = await refused(400, '/save', 'POST', '{');
    assert.match(noJson.message, /not JSON/);
    assert.equal(noJson.hint, 'Its fields are store, tags and then.');
    assert.match((await refused(400, '/save', 'POST', '[]')).message, /is not an object/);
    assert.match(
      (await refused(400, '/save', 'POST', '{"tug":"x"}')).message,
      /the field "tug" .* is not a known field/,
    );
    assert.match(
      (await refused(400, '/save', 'POST', '{"tags":"x"}')).message,
      /the field tags .* is not a list/,
    );
    assert.match(
      (await refused(400, '/save', 'POST', '{"tags":["x",1]}')).message,
      /the field tags\[1\] .* is not a string/,
    );
    assert.match(
      (await refused(400, '/save', 'POST', '{"then":"fly"}')).message,
      /is not resume, pause or stop/,
    );
    assert.match((await refused(400, '/save', 'POST', '{"store":"rel"}')).message, /absolute/);
    assert.match((await refused(400, '/pause', 'POST', '{"a":1}')).message, /not a known field/);
    const noHistory = await refused(400, '/console?history=-1', 'GET');
    assert.match(noHistory.message, /history/);
    assert.match(noHistory.hint ?? '', /^Example/);
    for (const character of ['\\u0000', '\\ud800'])
      for (const field of [`"store":"/a${character}b"`, `"tags":["a${character}b"]`])
        assert.match((await refused(400, '/save', 'POST', `{${field}}`)).message, /character/);
    assert.match(
      (await refused(400, '/save', 'POST', Buffer.from('7b2273746f7265223a22ff227d', 'hex'))).message,
      /UTF-8/,
    );
    for (const target of ['http://[', '//', 'http://a:b:c/machine'])
      assert.match((await refused(400, target, 'GET')).message, /not a valid request target/);
    assert.match((await refused(413, '/save', 'POST', ' '.repeat(70_000))).message, /longer than/);
    assert.deepEqual(machine.done, []);
  });

  it('answers that the machine is starting until it runs', async () => {
    await open(root);
    const early = new ControlServer();
    const socketPath = join(base, 'early.sock');
    await early.listenUnix(socketPath);
    const answer = await ask({ socketPath, path: '/machine' });
    assert.equal(answer.status, 503);
    assert.equal(JSON.parse(answer.text).error.code, 'NOT_POSSIBLE_NOW');
    await early.close(0);
  });

  it('leaves a new machine of the same name alone after its own run directory was removed', async () => {
    await open(root);
    rmSync(directory.path, { recursive: true });
    const next = await new RunDirectory(root, 'vm').claim();
    const nextServer = new ControlServer();
    await nextServer.listenUnix(next.socket);
    try {
      await service.stop(AT_ONCE);
      await service.ended;
      assert.deepEqual(readdirSync(next.path).sort(), ['control.sock', 'lock']);
      assert.equal((await ask({ socketPath: next.socket, path: '/machine' })).status, 503);
    } finally {
      await nextServer.close(0);
    }
    assert.equal(existsSync(next.socket), false, 'a server takes its own socket away');
    await next.remove();
    next.release();
  });

  it('answers on the loopback port only to its own Host and Origin', async () => {
    const port = await open(root, 0);
    const bearer = { authorization: `Bearer ${TOKEN}` };
    const get = (headers: Record<string, string>) =>
      ask({ host: '127.0.0.1', port, path: '/machine', headers: { ...bearer, ...headers } }).then(
        (answer) => answer.status,
      );
    assert.equal(await get({}), 200);
    assert.equal(await get({ host: `[::1]:${port}` }), 200);
    for (const authorization of [
      '',
      'Bearer ',
      `Bearer ${TOKEN}x`,
      `Bearer ${TOKEN.slice(1)}`,
      `Basic ${TOKEN}`,
      TOKEN,
    ])
      assert.equal(await get({ authorization }), 401, authorization);
    const without = await ask({ host: '127.0.0.1', port, path: '/stop', method: 'POST' });
    assert.deepEqual(
      [without.status, JSON.parse(without.text).error.message],
      [401, 'the request has no token'],
    );
    assert.equal(await get({ host: `localhost:${port}` }), 200);
    assert.equal(await get({ origin: `http://127.0.0.1:${port}` }), 200);
    assert.equal(await get({ host: 'evil.example' }), 403);
    assert.equal(await get({ host: `evil.example:${port}` }), 403);
    assert.equal(await get({ host: '127.0.0.1' }), 403);
    assert.equal(await get({ origin: 'http://evil.example' }), 403);
    assert.equal(await get({ origin: 'null' }), 403);
    assert.equal(await get({ origin: `https://127.0.0.1:${port}` }), 403);
    const save = await ask(
      { host: '127.0.0.1', port, path: '/save', method: 'POST', headers: bearer },
      '{"store":"/etc"}',
    );
    assert.equal(save.status, 403);
    assert.deepEqual(machine.done, []);
    const other = new ControlServer();
    await assert.rejects(other.listenLoopback(port, TOKEN), hasCode('NAME_IN_USE'));
  });

  it('can be reached through a socket whose path is too long for an address', async () => {
    const deep = join(base, 'x'.repeat(60), 'y'.repeat(60));
    mkdirSync(deep, { recursive: true });
    await open(join(deep, 'r'));
    assert.ok(directory.socket.length > 107);
    assert.ok(statSync(directory.socket).isSocket(), 'it is where it should be, whole');
    const client = await findMachine('vm', root);
    assert.equal((await client.describe()).name, 'vm');
    await client.stop();
    await service.ended;
    assert.deepEqual(readdirSync(root), []);
  });
});
