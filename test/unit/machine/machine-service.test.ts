/** What a machine's service does for disks that end with the machine. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { LivesnapError } from '../../../src/errors.js';
import { findMachine } from '../../../src/machine/client.js';
import { ControlServer } from '../../../src/machine/control-server.js';
import { AT_ONCE, MachineService } from '../../../src/machine/machine-service.js';
import { type ClaimedRunDirectory, RunDirectory } from '../../../src/machine/run-directory.js';
import { FakeMachine, FakeStore } from './fake-machine.js';

describe('MachineService', () => {
  let base: string;
  let directory: ClaimedRunDirectory;
  let machine: FakeMachine;
  let service: MachineService;
  let logged: string[];

  beforeEach(async () => {
    base = mkdtempSync(join(tmpdir(), 'livesnap-service-'));
    directory = await new RunDirectory(join(base, 'r'), 'vm').claim();
    machine = new FakeMachine();
    machine.savesDisks = true;
    logged = [];
    const server = new ControlServer();
    await server.listenUnix(directory.socket);
    service = new MachineService(machine, {
      directory,
      server,
      storeDir: '/store',
      port: null,
      stores: { open: async (dir) => new FakeStore(dir, () => {}), cancelWaits: () => {} },
      log: (sentence) => logged.push(sentence),
      closeGraceMs: 100,
    });
    await service.open();
    machine.done.length = 0;
  });
  afterEach(async () => {
    await service.stop({ ...AT_ONCE, discard: true });
    await service.ended;
    directory.release();
    rmSync(base, { recursive: true, force: true });
  });

  const SAVED = 'saveDisks /store vm [vm-disk]';
  const full = (): void => {
    machine.diskError = new LivesnapError('NO_SPACE', 'the disk is full');
  };

  it('saves the disks in the store of the machine before it stops the machine', async () => {
    await (await findMachine('vm', join(base, 'r'))).stop({ force: true });
    assert.deepEqual(machine.done, [SAVED, 'stop']);
  });

  it('stops at once if that is to be skipped, or if there is nothing to save', async () => {
    await (await findMachine('vm', join(base, 'r'))).stop({ force: true, discard: true });
    assert.deepEqual(machine.done, ['stop']);
  });

  it('saves the disks when the guest has turned the machine off, and then ends it', async () => {
    machine.powerOff();
    await service.ended;
    assert.deepEqual(machine.done, [SAVED, 'stop']);
  });

  it('keeps a machine whose disks cannot be saved, and says why', async () => {
    full();
    await assert.rejects(service.stop(AT_ONCE), (error: LivesnapError) => {
      assert.equal(error.code, 'DISKS_NOT_SAVED');
      assert.equal(error.message, 'the disks could not be saved: the disk is full');
      assert.match(error.hint!, /--discard/);
      return true;
    });
    assert.equal(machine.end, null);
    assert.equal(service.describe().problem, 'the disks could not be saved: the disk is full');
    machine.diskError = null;
    await service.stop(AT_ONCE);
    assert.deepEqual(machine.done, [SAVED, SAVED, 'stop']);
  });

  it('saves once if the guest turns the machine off while it is being stopped', async () => {
    const stopped = service.stop(AT_ONCE);
    machine.powerOff();
    await stopped;
    assert.deepEqual(machine.done, [SAVED, 'stop']);
  });

  it('does not let the guest run between the save of the disks and the end', async () => {
    const stopped = service.stop(AT_ONCE);
    await assert.rejects(service.resume(), { code: 'MACHINE_GONE' });
    await stopped;
    assert.deepEqual(machine.done, [SAVED, 'stop']);
  });

  it('is stopped when a save before it ends the machine', async () => {
    const saved = service.save({ store: null, tags: [], then: 'stop' }, () => {});
    const stopped = await service.stop(AT_ONCE);
    await saved;
    assert.equal(stopped.state, 'stopped');
    assert.deepEqual(machine.done, ['save /store vm [] stop']);
  });

  it('records whether the machine is paused, for programs that watch the record', async () => {
    const recorded = async () => (await directory.readRecord())?.state;
    assert.equal(await recorded(), 'running');
    await service.pause();
    assert.equal(await recorded(), 'paused');
    await service.resume();
    assert.equal(await recorded(), 'running');
    machine.fail('disk0 cannot be written at block 5');
    await service.pause(); // after the record was written
    assert.equal(await recorded(), 'paused');
  });

  it('tells why the host has paused the machine, in the log, on the console and to a client', () => {
    machine.fail('disk0 cannot be written at block 5');
    assert.equal(service.describe().problem, 'disk0 cannot be written at block 5');
    assert(logged.includes('the machine is paused: disk0 cannot be written at block 5'));
    const viewer = new PassThrough();
    service.console.join(viewer, 1000, () => {});
    const shown = String(viewer.read());
    assert.equal(
      shown,
      '[livesnap] vm is paused: disk0 cannot be written at block 5. Fix this, then run: livesnap resume vm\r\n',
    );
  });
});
