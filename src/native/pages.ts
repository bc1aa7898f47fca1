/**
 * Page work in batches: zero scan, XXH64, BLAKE3, comparison, LZ4 blocks (docs/format.md, "Words" and "Frames").
 *
 * One interface has two implementations: the addon's, which bench/pages.ts justifies, and a portable one of xxhash-wasm,
 * @noble/hashes, lz4-napi and Buffer. The portable one is used where the addon is not built, and with LIVESNAP_NATIVE_PAGES=0.
 *
 * Invariants:
 * - Each implementation reads what the other has written.
 * - Fingerprints, digests and checksums are equal bit for bit. LZ4 blocks may differ.
 */
import { addon, isAddonBuilt } from './addon.js';
import { loadBlake3, loadLz4, loadXxhash } from './modules.js';

export interface PageOps {
  /** Which implementation this is. */
  readonly name: 'native' | 'portable';
  /** Whether it has LZ4-HC. lz4-napi does not. */
  readonly hasHigh: boolean;
  /** Fills `hashes`, 8 little-endian bytes a page: 0 for a zero page, else the page's XXH64, where 0 becomes 1. */
  hashPages(bytes: Uint8Array, count: number, hashes: Uint8Array): void;
  /**
   * Begins `hashPages` on native threads, where there are any. When the returned function returns, `hashes` is filled.
   * Call it exactly once. Until then nobody else uses the buffers.
   */
  hashPagesAhead(bytes: Uint8Array, count: number, hashes: Uint8Array): () => void;
  /** Fills `digests`, 32 bytes a page, with the BLAKE3 of each page. */
  blake3(bytes: Uint8Array, count: number, digests: Uint8Array): void;
  /** XXH64 of a range, seeded with seedHigh × 2^32 + seedLow, as 8 little-endian bytes into `out`. */
  checksum(
    bytes: Uint8Array,
    offset: number,
    length: number,
    seedLow: number,
    seedHigh: number,
    out: Uint8Array,
  ): void;
  /** The same with seed 0, of bytes that come in parts. */
  checksumInParts(): ChecksumInParts;
  equal(a: Uint8Array, aOffset: number, b: Uint8Array, bOffset: number, length: number): boolean;
  /**
   * Writes an LZ4 block (no length prefix) and returns its size; 0 when it would exceed `capacity`. `isHigh`: by
   * LZ4-HC, if there is one.
   */
  compress(
    source: Uint8Array,
    length: number,
    target: Uint8Array,
    targetOffset: number,
    capacity: number,
    isHigh?: boolean,
  ): number;
  /** True when the LZ4 block is well formed and unpacks to exactly `targetLength` bytes. */
  decompress(
    source: Uint8Array,
    sourceOffset: number,
    sourceLength: number,
    target: Uint8Array,
    targetOffset: number,
    targetLength: number,
  ): boolean;
}

export interface ChecksumInParts {
  update(part: Uint8Array): void;
  /** 8 little-endian bytes; the last call. */
  end(): Uint8Array;
}

const PAGE_BYTES = 4096;
const BLAKE3_BYTES = 32;

/** The portable implementation. It needs no code compiled here. */
export async function loadPortablePageOps(): Promise<PageOps> {
  const { h64Raw, create64 } = await loadXxhash()();
  const lz4 = loadLz4();
  const zeros = new Uint8Array(PAGE_BYTES);
  const view = (bytes: Uint8Array, offset: number, length: number): Buffer =>
    Buffer.from(bytes.buffer, bytes.byteOffset + offset, length);

  const hashPages: PageOps['hashPages'] = (bytes, count, hashes) => {
    const out = new DataView(hashes.buffer, hashes.byteOffset, hashes.byteLength);
    for (let i = 0; i < count; i++) {
      const page = bytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
      let hash = 0n;
      if (page[0] !== 0 || Buffer.compare(page, zeros) !== 0) hash = h64Raw(page) || 1n;
      out.setBigUint64(i * 8, hash, true);
    }
  };

  return {
    name: 'portable',
    hasHigh: false,
    hashPages,
    hashPagesAhead(bytes, count, hashes) {
      return () => hashPages(bytes, count, hashes);
    },
    blake3(bytes, count, digests) {
      const blake3 = loadBlake3();
      for (let i = 0; i < count; i++)
        digests.set(blake3(bytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES)), i * BLAKE3_BYTES);
    },
    checksum(bytes, offset, length, seedLow, seedHigh, out) {
      const hash = h64Raw(
        bytes.subarray(offset, offset + length),
        (BigInt(seedHigh) << 32n) | BigInt(seedLow),
      );
      new DataView(out.buffer, out.byteOffset, 8).setBigUint64(0, hash, true);
    },
    checksumInParts() {
      const hash = create64();
      return {
        update: (part) => void hash.update(part),
        end() {
          const out = Buffer.alloc(8);
          out.writeBigUInt64LE(hash.digest());
          return out;
        },
      };
    },
    equal(a, aOffset, b, bOffset, length) {
      return (
        Buffer.compare(a.subarray(aOffset, aOffset + length), b.subarray(bOffset, bOffset + length)) === 0
      );
    },
    compress(source, length, target, targetOffset, capacity) {
      // lz4-napi puts the raw length before the block; the store keeps only the block.
      const block = lz4.compressSync(view(source, 0, length)).subarray(4);
      if (block.length > capacity) return 0;
      target.set(block, targetOffset);
      return block.length;
    },
    decompress(source, sourceOffset, sourceLength, target, targetOffset, targetLength) {
      // lz4-napi allocates what the prefix says. This prefix is ours, never the disk's.
      const prefixed = Buffer.allocUnsafe(4 + sourceLength);
      prefixed.writeUInt32LE(targetLength, 0);
      prefixed.set(source.subarray(sourceOffset, sourceOffset + sourceLength), 4);
      let raw: Buffer;
      try {
        raw = lz4.uncompressSync(prefixed);
      } catch {
        return false;
      }
      if (raw.length !== targetLength) return false;
      target.set(raw, targetOffset);
      return true;
    },
  };
}

interface NativeChecksum {
  readonly checksumStateBytes: number;
  checksumBegin(state: Uint8Array): void;
  checksumUpdate(state: Uint8Array, bytes: Uint8Array, length: number): void;
  checksumEnd(state: Uint8Array, out: Uint8Array): void;
}

declare const brand: unique symbol;
interface HashesAhead {
  readonly [brand]: 'hashes ahead';
}

/** addon/hash_ahead.cc */
interface NativeHashAhead {
  hashAheadBegin(bytes: Uint8Array, count: number, hashes: Uint8Array): HashesAhead;
  hashAheadEnd(ahead: HashesAhead): void;
}

type NativePageOps = Omit<PageOps, 'name' | 'hasHigh' | 'hashPagesAhead' | 'checksumInParts'>;

/** The addon's implementation. Errors: SYSTEM. */
export function loadNativePageOps(): PageOps {
  const native = addon<NativePageOps & NativeChecksum & NativeHashAhead>();
  const { hashPages, blake3, checksum, equal, compress, decompress } = native;
  const checksumInParts = (): ChecksumInParts => {
    const state = new Uint8Array(native.checksumStateBytes);
    native.checksumBegin(state);
    return {
      update: (part) => native.checksumUpdate(state, part, part.length),
      end() {
        const out = new Uint8Array(8);
        native.checksumEnd(state, out);
        return out;
      },
    };
  };
  return {
    ...{ name: 'native', hasHigh: true },
    hashPagesAhead(bytes, count, hashes) {
      const ahead = native.hashAheadBegin(bytes, count, hashes);
      return () => native.hashAheadEnd(ahead);
    },
    ...{ hashPages, blake3, checksum, checksumInParts, equal, compress, decompress },
  };
}

/** The implementation that this process uses. The portable one is there when {@link pageOpsLoaded} has resolved. */
export let pageOps: PageOps;

/** Await this before a store is opened. Errors: SYSTEM. */
export const pageOpsLoaded: Promise<void> = loadPageOps();
pageOpsLoaded.catch(() => {}); // for whoever awaits it

async function loadPageOps(): Promise<void> {
  const isNative = isAddonBuilt && process.env.LIVESNAP_NATIVE_PAGES !== '0';
  pageOps = isNative ? loadNativePageOps() : await loadPortablePageOps();
}

/** The same operations with fingerprints cut to `bits`, so that tests can show that collisions are harmless. */
export function withFingerprintBits(ops: PageOps, bits: number): PageOps {
  if (bits >= 64) return ops;
  const mask = (1n << BigInt(bits)) - 1n;
  const cut = (count: number, hashes: Uint8Array): void => {
    const view = new DataView(hashes.buffer, hashes.byteOffset, hashes.byteLength);
    for (let i = 0; i < count; i++) {
      const hash = view.getBigUint64(i * 8, true);
      if (hash !== 0n) view.setBigUint64(i * 8, hash & mask || 1n, true);
    }
  };
  return {
    ...ops,
    hashPages(bytes, count, hashes) {
      ops.hashPages(bytes, count, hashes);
      cut(count, hashes);
    },
    hashPagesAhead(bytes, count, hashes) {
      const end = ops.hashPagesAhead(bytes, count, hashes);
      return () => {
        end();
        cut(count, hashes);
      };
    },
  };
}
