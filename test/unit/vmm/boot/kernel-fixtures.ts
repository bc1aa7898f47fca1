/**
 * Makes small kernels, right ones unless told otherwise: ELF files, and bzImages around a payload.
 * Also guest memory for them to be loaded into.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compressSync } from 'lz4-napi';
import type { RamSlot } from '../../../../src/vmm/boot/memory-layout.js';
import type { GuestMemory } from '../../../../src/vmm/memory/guest-memory.js';

export const MIB = 1 << 20;

export interface ElfSegment {
  type?: number;
  vaddr?: bigint;
  paddr?: bigint;
  bytes?: Buffer;
  memBytes?: number;
  /** Instead of where the bytes are. */
  fileOffset?: bigint;
}

export interface ElfOptions {
  machine?: number;
  class?: number;
  data?: number;
  type?: number;
  entry?: bigint;
  segments?: ElfSegment[];
}

export const KERNEL_GPA = 0x100_0000;
export const KERNEL_VADDR = 0xffff_ffff_8100_0000n;
export const KERNEL_CODE = Buffer.from('the kernel: code', 'latin1');

/** By default one segment, {@link KERNEL_CODE} at 16 MiB with as many zeros behind it, entered at its start. */
export function elfKernel(options: ElfOptions = {}): Buffer {
  const segments = options.segments ?? [{}];
  const header = Buffer.alloc(64 + 56 * segments.length);
  header.write('\x7fELF', 0, 'latin1');
  header[4] = options.class ?? 2;
  header[5] = options.data ?? 1;
  header[6] = 1;
  header.writeUInt16LE(options.type ?? 2, 16);
  header.writeUInt16LE(options.machine ?? 62, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(options.entry ?? BigInt(KERNEL_GPA), 24);
  header.writeBigUInt64LE(64n, 32);
  header.writeUInt16LE(64, 52);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(segments.length, 56);
  const parts: Buffer[] = [header];
  let fileOffset = header.length;
  segments.forEach((segment, i) => {
    const bytes = segment.bytes ?? KERNEL_CODE;
    const at = 64 + 56 * i;
    header.writeUInt32LE(segment.type ?? 1, at);
    header.writeBigUInt64LE(segment.fileOffset ?? BigInt(fileOffset), at + 8);
    header.writeBigUInt64LE(segment.vaddr ?? KERNEL_VADDR, at + 16);
    header.writeBigUInt64LE(segment.paddr ?? BigInt(KERNEL_GPA), at + 24);
    header.writeBigUInt64LE(BigInt(bytes.length), at + 32);
    header.writeBigUInt64LE(BigInt(segment.memBytes ?? bytes.length * 2), at + 40);
    parts.push(bytes);
    fileOffset += bytes.length;
  });
  return Buffer.concat(parts);
}

export interface BzImageOptions {
  setupSects?: number;
  version?: number;
  xloadflags?: number;
  loadflags?: number;
  prefAddress?: bigint;
  initSizeBytes?: number;
  initrdAddrMax?: number;
  cmdlineSize?: number;
  payloadOffset?: number;
  payloadLength?: number;
  /** Distance from 0x202 to the end of the header. */
  jump?: number;
}

/** The protected-mode kernel is 1 KiB of 0x90 with the payload behind it. */
export const STUB_BYTES = 1024;

export function bzImage(payload: Buffer, options: BzImageOptions = {}): Buffer {
  const setupSects = options.setupSects ?? 3;
  const setupBytes = (setupSects + 1) * 512;
  const kernel = Buffer.concat([Buffer.alloc(STUB_BYTES, 0x90), payload, Buffer.alloc(-payload.length & 15)]);
  const image = Buffer.concat([Buffer.alloc(setupBytes), kernel]);
  image[0x1f1] = setupSects;
  image.writeUInt32LE(kernel.length / 16, 0x1f4);
  image.writeUInt16LE(0xaa55, 0x1fe);
  image[0x200] = 0xeb;
  image[0x201] = options.jump ?? 0x6a;
  image.write('HdrS', 0x202, 'latin1');
  image.writeUInt16LE(options.version ?? 0x020f, 0x206);
  image[0x211] = options.loadflags ?? 1;
  image.writeUInt32LE(options.initrdAddrMax ?? 0x7fff_ffff, 0x22c);
  image.writeUInt32LE(0x20_0000, 0x230);
  image[0x234] = 1;
  image.writeUInt16LE(options.xloadflags ?? 1, 0x236);
  image.writeUInt32LE(options.cmdlineSize ?? 2047, 0x238);
  image.writeUInt32LE(options.payloadOffset ?? STUB_BYTES, 0x248);
  image.writeUInt32LE(options.payloadLength ?? payload.length, 0x24c);
  image.writeBigUInt64LE(options.prefAddress ?? BigInt(KERNEL_GPA), 0x258);
  image.writeUInt32LE(options.initSizeBytes ?? 24 * MIB, 0x260);
  return image;
}

const LZ4_BLOCK_BYTES = 8 * MIB;
export const LZ4_LEGACY_MAGIC = Buffer.from([0x02, 0x21, 0x4c, 0x18]);

/** A legacy frame with the unpacked size behind it, as the kernel's build makes. */
export function lz4Payload(bytes: Buffer): Buffer {
  const parts: Buffer[] = [LZ4_LEGACY_MAGIC];
  for (let at = 0; at < bytes.length; at += LZ4_BLOCK_BYTES) {
    const block = compressSync(bytes.subarray(at, at + LZ4_BLOCK_BYTES)).subarray(4);
    parts.push(uint32(block.length), block);
  }
  parts.push(uint32(bytes.length));
  return Buffer.concat(parts);
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** Guest memory that keeps what is written, and refuses what lies outside RAM or was written before. */
export class RecordingMemory implements GuestMemory {
  readonly layout: readonly RamSlot[];
  readonly writes: { gpa: number; bytes: Buffer }[] = [];

  constructor(layout: readonly RamSlot[]) {
    this.layout = layout;
  }

  write(gpa: number, bytes: Uint8Array): void {
    const end = gpa + bytes.length;
    const inside = this.layout.some((slot) => gpa >= slot.gpa && end <= slot.gpa + slot.sizeBytes);
    if (!inside) throw new Error(`a write of ${bytes.length} bytes at ${gpa} is outside RAM`);
    for (const { gpa: other, bytes: written } of this.writes) {
      if (gpa < other + written.length && other < end) throw new Error(`two writes at ${gpa} and ${other}`);
    }
    this.writes.push({ gpa, bytes: Buffer.from(bytes) });
  }

  /** What was written, and zeros elsewhere. */
  bytes(gpa: number, length: number): Buffer {
    const result = Buffer.alloc(length);
    this.read(gpa, result);
    return result;
  }

  read(gpa: number, into: Uint8Array): void {
    into.fill(0);
    for (const { gpa: at, bytes } of this.writes) {
      const from = Math.max(gpa, at);
      const to = Math.min(gpa + into.length, at + bytes.length);
      if (from < to) bytes.copy(into, from - gpa, from - at, to - at);
    }
  }
}

/** A directory for image files, removed by {@link close}. */
export class ImageDirectory {
  readonly path = mkdtempSync(join(tmpdir(), 'livesnap-boot-'));

  file(name: string, bytes: Uint8Array | string): string {
    const path = join(this.path, name);
    writeFileSync(path, bytes);
    return path;
  }

  close(): void {
    rmSync(this.path, { recursive: true });
  }
}
