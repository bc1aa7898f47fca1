/**
 * The disks of a machine on the device thread: their block devices, the I/O engine, and the blocks that saves read.
 *
 * Thread: the device thread.
 */
import { closeSync } from 'node:fs';
import type { BitSet } from '../bit-set.js';
import { LivesnapError } from '../errors.js';
import type { IoEngine } from '../native/block-io.js';
import { closeMemory, createMemory, type MemoryHandle } from '../native/memory.js';
import type { DeviceParts, Watch } from './devices/device.js';
import type { MemoryRange } from './disk/block-io.js';
import { Disk } from './disk/disk.js';
import type { DiskSetup } from './disk/disk-setup.js';
import { NativeBlockIo } from './disk/native-block-io.js';
import { openScratchFile } from './disk/scratch-file.js';
import { type VirtioBlock, virtioBlock } from './virtio/block.js';
import type { VirtioDescriptor } from './virtio/virtio-device.js';

/** The disks of a machine, and what they share. */
export interface DisksSetup {
  readonly disks: readonly DiskSetup[];
  readonly engine: IoEngine;
  /** Where blocks are put that a save reads. */
  readonly staging: MemoryHandle;
}

const ZEROS_BYTES = 1 << 20;

export class DiskDevices {
  /** One for each disk, in order. */
  readonly descriptors: readonly VirtioDescriptor[];
  readonly #io: NativeBlockIo;
  readonly #zeros = createMemory(ZEROS_BYTES);
  readonly #staging: MemoryHandle;
  readonly #disks: readonly Disk[];
  readonly #devices: VirtioBlock[] = [];
  #watch: Watch | null = null;

  /** `onStall`: a request waits for the host, and the machine must be paused. */
  constructor({ disks, engine, staging }: DisksSetup, onStall: (problem: string) => void) {
    this.#io = new NativeBlockIo(engine);
    this.#staging = staging;
    this.#disks = disks.map(
      (setup) =>
        new Disk(setup, {
          io: this.#io,
          zeros: { memory: this.#zeros, sizeBytes: ZEROS_BYTES },
          scratch: { openFile: () => openScratchFile(setup.scratchDir), closeFile: closeSync },
        }),
    );
    this.descriptors = this.#disks.map((disk, i) => {
      const descriptor = virtioBlock({ disk, onError: disks[i]!.onError, onStall });
      const kept = (device: VirtioBlock): VirtioBlock => {
        this.#devices.push(device);
        return device;
      };
      return {
        ...descriptor,
        create: (parts, link) => kept(descriptor.create(parts, link)),
        restore: (parts, link, state) => kept(descriptor.restore(parts, link, state as never)),
      };
    });
  }

  /** Begins to take completions. */
  start(parts: Pick<DeviceParts, 'watch'>): void {
    this.#watch = parts.watch(this.#io.fd, { read: true, write: false }, () => {
      this.#io.drain();
      for (const device of this.#devices) device.publish();
    });
  }

  /** Reads blocks into the staging memory. Calls back with what failed, or null. */
  readBlocks(disk: number, blocks: Uint32Array, done: (error: LivesnapError | null) => void): void {
    const { name } = this.#disks[disk]!;
    this.#disks[disk]!.readBlocks(blocks, this.#staging, (failure) =>
      done(
        failure &&
          new LivesnapError('SYSTEM', `the save failed: ${name} ${failure.what}`, {
            hint: 'Free space, or check the disk and the store, and save again.',
          }),
      ),
    );
  }

  /** As {@link Disk.findData}. */
  findData(disk: number, bits: MemoryRange, done: () => void): void {
    this.#disks[disk]!.findData(bits, done);
  }

  /** The moment of a save: these blocks, by disk, are kept as they are until the save has read them. */
  freeze(frozen: readonly BitSet[]): void {
    frozen.forEach((blocks, disk) => {
      this.#disks[disk]!.freeze(blocks);
    });
  }

  /** The save has ended. */
  thaw(): void {
    for (const disk of this.#disks) disk.thaw();
  }

  /** Waits for the operations that run. False: one hangs, and the wait was given up. */
  close(): boolean {
    this.#watch?.end();
    const isQuiet = this.#io.close();
    if (isQuiet) for (const disk of this.#disks) disk.thaw();
    closeMemory(this.#zeros);
    return isQuiet;
  }
}
