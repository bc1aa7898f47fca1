/** Disks on the native engine and real files, compared with a model as in disk.test.ts. */
import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { createIoEngine, waitForCompletion } from '../../../../src/native/block-io.js';
import { closeMemory, createMemory } from '../../../../src/native/memory.js';
import { NativeBlockIo } from '../../../../src/vmm/disk/native-block-io.js';
import { dropScratch, loopDevice } from '../../../store/scratch.js';
import { random as seededRandom } from '../seeded-random.js';
import { diskCommands, MODEL_SECTORS, performCommands } from './disk-commands.js';
import { type Backend, DiskRig } from './disk-rig.js';

describe('NativeBlockIo', () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-block-io-'));
  });
  afterEach(function () {
    dropScratch(this);
  });
  after(() => rmSync(dir, { recursive: true }));

  function filledDevice(path: string, bytes: Buffer): number {
    const fd = openSync(path, 'r+');
    writeSync(fd, bytes, 0, bytes.length, 0);
    return fd;
  }

  let files = 0;
  function addFile(bytes: Buffer): number {
    const fd = openSync(join(dir, `${files++}`), 'wx+');
    writeSync(fd, bytes, 0, bytes.length, 0);
    return fd;
  }

  /**
   * `capacity`: of the engine, so that it refuses operations. `device`: a block device that is used instead of every
   * file that begins with data.
   */
  function realBackend(capacity: number, device?: string): Backend {
    const engine = createIoEngine(2, capacity);
    const io = new NativeBlockIo(engine);
    const fds = new Set<number>();
    return {
      io,
      addFile: (bytes) => {
        const fd = device === undefined || bytes.length === 0 ? addFile(bytes) : filledDevice(device, bytes);
        fds.add(fd);
        return fd;
      },
      addStore: () => null,
      closeFile: (fd) => {
        fds.delete(fd);
        closeSync(fd);
      },
      step: () => {
        waitForCompletion(engine, 1);
        io.drain();
      },
      close: () => {
        io.close();
        for (const fd of fds) closeSync(fd);
      },
    };
  }

  for (const kind of ['raw', 'cow', 'zeros'] as const)
    it(`moves the bytes of a disk on real files (${kind})`, () => {
      fc.assert(
        fc.property(diskCommands, fc.nat(), fc.constantFrom(2, 64), (list, seed, capacity) => {
          const draw = seededRandom(seed);
          performCommands(new DiskRig(realBackend(capacity), MODEL_SECTORS * 512, kind, () => draw(1)), list);
        }),
        { numRuns: 20 },
      );
    });

  it('moves the bytes of a disk on a block device', function () {
    const file = join(dir, 'behind-device');
    writeFileSync(file, Buffer.alloc(MODEL_SECTORS * 512));
    const device = loopDevice(this, file);
    fc.assert(
      fc.property(diskCommands, fc.nat(), (list, seed) => {
        const draw = seededRandom(seed);
        const backend = realBackend(64, device);
        performCommands(new DiskRig(backend, MODEL_SECTORS * 512, 'raw', () => draw(1)), list);
      }),
      { numRuns: 20 },
    );
  });

  it('reports errors, and calls back once for each operation of a full engine', () => {
    const engine = createIoEngine(1, 1);
    const io = new NativeBlockIo(engine);
    const memory = createMemory(4096);
    const fd = addFile(Buffer.alloc(4096, 7));
    const results: number[] = [];
    for (let i = 0; i < 20; i++)
      io.read({ fd, offset: 0 }, [{ memory, offset: 0, length: 4096 }], (errno) => results.push(errno));
    io.sync(-1 >>> 1, (errno) => results.push(errno));
    while (results.length < 21) {
      waitForCompletion(engine, 1000);
      io.drain();
    }
    assert.deepEqual(results, [...Array(20).fill(0), constants.errno.EBADF]);
    io.close();
    closeSync(fd);
    closeMemory(memory);
  });
});
