import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { EXTENT_BLOCKS, Overlay } from '../../../../src/vmm/disk/overlay.js';
import { SharedBits } from '../../../../src/vmm/memory/shared-bits.js';
import { FakeIo } from './fake-io.js';

const { EIO, ENOSPC, EOPNOTSUPP, ESTALE } = constants.errno;
const EXTENT_BYTES = EXTENT_BLOCKS * 4096;
const BLOCKS = EXTENT_BLOCKS * 4;

describe('Overlay', () => {
  let io: FakeIo;
  let overlay: Overlay;
  let freeBytes: number;
  let freeBytesError: Error | null;
  beforeEach(() => {
    io = new FakeIo();
    freeBytes = 100 * EXTENT_BYTES;
    freeBytesError = null;
    const setup = {
      fd: io.addFile(Buffer.alloc(0)),
      present: SharedBits.allocate(BLOCKS),
      reserveBytes: 3 * EXTENT_BYTES,
    };
    overlay = new Overlay(setup, BLOCKS, io, () => {
      if (freeBytesError !== null) throw freeBytesError;
      return freeBytes;
    });
  });

  function allocate(first: number, last: number): number | undefined {
    let result: number | undefined;
    overlay.allocate(first, last, (errno) => {
      result = errno;
    });
    io.settle();
    return result;
  }

  it('allocates whole extents, each once', () => {
    assert.equal(overlay.isAllocated(0, 0), false);
    assert.equal(allocate(EXTENT_BLOCKS - 1, EXTENT_BLOCKS), 0);
    assert(overlay.isAllocated(0, 2 * EXTENT_BLOCKS - 1));
    assert.equal(io.counts.allocate, 2);
    assert.equal(overlay.isAllocated(0, 2 * EXTENT_BLOCKS), false);
  });

  it('leaves room for a save', () => {
    freeBytes = 4 * EXTENT_BYTES - 1;
    assert.equal(allocate(0, 0), ENOSPC);
    assert.equal(io.counts.allocate, undefined);
    freeBytes = 4 * EXTENT_BYTES;
    assert.equal(allocate(0, 0), 0);
  });

  it('reports a file system whose free space is not known', () => {
    freeBytesError = Object.assign(new Error('stale file handle'), { errno: -ESTALE });
    assert.equal(allocate(0, 0), ESTALE);
    freeBytesError = null;
    assert.equal(allocate(0, 0), 0);
  });

  it('reports a failed allocation, and does without one where it is not possible', () => {
    io.fault = () => EIO;
    assert.equal(allocate(0, 0), EIO);
    assert.equal(overlay.isAllocated(0, 0), false);
    io.fault = () => EOPNOTSUPP;
    assert.equal(allocate(0, 0), 0);
    assert(overlay.isAllocated(0, 0));
  });

  it('allocates again what was punched, even while it was being allocated', () => {
    allocate(0, 0);
    overlay.punch(0, 3, () => {});
    io.settle();
    assert.equal(overlay.isAllocated(0, 0), false);
    overlay.allocate(0, 0, () => {});
    overlay.punch(1, 1, () => {});
    io.settle();
    assert.equal(overlay.isAllocated(0, 0), false);
  });
});
