/** A block device for the contract suite and the fuzzing. Sector `n` always holds the byte `n` + 1, whoever writes it. */
import assert from 'node:assert/strict';
import { closeMemory, createMemory } from '../../../src/native/memory.js';
import { Disk } from '../../../src/vmm/disk/disk.js';
import { blocksOf, SECTOR_BYTES } from '../../../src/vmm/disk/disk-setup.js';
import { SharedBits } from '../../../src/vmm/memory/shared-bits.js';
import { type VirtioBlock, virtioBlock } from '../../../src/vmm/virtio/block.js';
import type { VirtioDescriptor } from '../../../src/vmm/virtio/virtio-device.js';
import { FakeIo } from '../../unit/vmm/disk/fake-io.js';
import type { Request, VirtioRig } from '../../unit/vmm/virtio/driver-twin.js';
import type { Below, OpenSubject, VirtioSubject } from './subjects.js';

const SECTORS = 40;
const SIZE_BYTES = SECTORS * SECTOR_BYTES;
const Type = { in: 0, out: 1, flush: 4, getId: 8 } as const;
/** SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, DISCARD, WRITE_ZEROES. */
const FEATURES = [2n, 6n, 9n, 10n, 13n, 14n].reduce((all, bit) => all | (1n << bit), 0n);

const content = (sector: number, sectors: number): Buffer =>
  Buffer.from(Array.from({ length: sectors * SECTOR_BYTES }, (_, i) => sector + 1 + (i >> 9)));

function header(type: number, sector: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32LE(type, 0);
  bytes.writeUInt32LE(sector, 8);
  return bytes;
}

function requestOf(below: Below): Request {
  const sector = Math.floor(below(SECTORS));
  const sectors = 1 + Math.floor(below(Math.min(4, SECTORS - sector)));
  switch (Math.floor(below(5))) {
    case 0:
      return { readable: [header(Type.flush, 0)], writable: [1] };
    case 1:
      return { readable: [header(Type.getId, 0)], writable: [20, 1] };
    case 2:
      return { readable: [header(Type.out, sector), content(sector, sectors)], writable: [1] };
    default:
      return { readable: [header(Type.in, sector)], writable: [sectors * SECTOR_BYTES, 1] };
  }
}

/** A device with its own engine, and a copy of the image. */
interface Made {
  readonly io: FakeIo;
  device: VirtioBlock | null;
}

export const blockSubject: VirtioSubject = {
  name: 'block',
  open(): OpenSubject {
    const zeros = createMemory(4096);
    const made = new WeakMap<object, Made>();
    let last!: Made;
    return {
      descriptor(): VirtioDescriptor {
        const io = new FakeIo();
        const current: Made = { io, device: null };
        last = current;
        const disk = new Disk(
          {
            name: 'disk0',
            sizeBytes: SIZE_BYTES,
            readOnly: false,
            onError: 'pause',
            base: { kind: 'file', fd: io.addFile(content(0, SECTORS)) },
            overlay: {
              fd: io.addFile(Buffer.alloc(0)),
              present: SharedBits.allocate(blocksOf(SIZE_BYTES)),
              reserveBytes: 0,
            },
            written: SharedBits.allocate(blocksOf(SIZE_BYTES)),
            scratchDir: '/tmp',
          },
          {
            io,
            zeros: { memory: zeros, sizeBytes: 4096 },
            scratch: { openFile: () => assert.fail('no save'), closeFile: () => {} },
            freeBytes: () => Number.POSITIVE_INFINITY,
          },
        );
        const descriptor = virtioBlock({
          disk,
          onError: 'pause',
          onStall: (problem) => assert.fail(problem),
        });
        const kept = (device: VirtioBlock): VirtioBlock => {
          current.device = device;
          return device;
        };
        return {
          ...descriptor,
          create: (parts, link) => kept(descriptor.create(parts, link)),
          restore: (parts, link, state) => kept(descriptor.restore(parts, link, state as never)),
        };
      },
      features: FEATURES,
      request: requestOf,
      check({ request, buffers }) {
        // A driver that was mutated may have sent anything.
        const sent = Buffer.from(request.readable[0]!);
        assert.equal(buffers.at(-1), 0, 'the status is OK');
        if (sent.readUInt32LE(0) !== Type.in) return;
        const sector = sent.readUInt32LE(8);
        assert.deepEqual(buffers.subarray(0, -1), content(sector, (buffers.length - 1) / SECTOR_BYTES));
      },
      work(rig: VirtioRig, below) {
        const mine = made.get(rig) ?? last;
        made.set(rig, mine);
        mine.io.step(() => below(1));
        mine.device?.publish();
      },
      close: () => closeMemory(zeros),
    };
  },
};
