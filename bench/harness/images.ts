/** The memory that is saved: raw dumps that the user gives, or an image that a seed generates. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { PAGE_BYTES } from '../../src/page-stream.js';
import type { Context } from './figure.js';

const MIB = 1 << 20;
const IMAGE_BYTES = 256 * MIB;

/** xorshift32: equal seeds give equal images. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/**
 * An image of 256 MiB as Linux leaves its memory: 6% of the pages zero, 4% equal to an earlier page, a quarter as random as
 * compressed files, the rest text and tables that LZ4 halves. `variant` replaces 15% of the pages.
 */
export function generatedImage(variant: number): Buffer {
  const bytes = Buffer.allocUnsafe(IMAGE_BYTES);
  for (let page = 0; page < IMAGE_BYTES / PAGE_BYTES; page++) {
    const choose = generator(0x9e3779b9 ^ Math.imul(page + 1, 0x85ebca6b) || 1);
    for (let i = 0; i < 4; i++) choose();
    const kind = choose() % 100;
    const changes = choose() % 100 < 15;
    const at = page * PAGE_BYTES;
    if (kind < 6) bytes.fill(0, at, at + PAGE_BYTES);
    else if (kind < 10 && page > 64) bytes.copyWithin(at, at - 64 * PAGE_BYTES, at - 63 * PAGE_BYTES);
    else writePage(bytes, at, kind < 35, changes ? choose() ^ Math.imul(variant, 0xc2b2ae35) : choose());
  }
  return bytes;
}

function writePage(bytes: Buffer, at: number, isNoise: boolean, seed: number): void {
  const next = generator(seed || 1);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset + at, PAGE_BYTES / 4);
  for (let i = 0; i < words.length; i++) {
    const word = next();
    words[i] = isNoise || i % 4 === 0 ? word : i % 4 === 1 ? word & 0xffff : i % 4 === 2 ? 0xffff8880 : 0;
  }
}

/** What results are listed under: the names of the dumps. */
export const inputName = (images: readonly string[]): string =>
  images.length === 0 ? 'generated' : images.map((path) => basename(path)).join(' ');

/** Paths of at least `count` images: the given ones, or as many that are generated into the directory. */
export function imagePaths({ dir, images }: Context, count: number): string[] {
  if (images.length > 0) return images.slice(0, count);
  return Array.from({ length: count }, (_, i) => {
    const path = join(dir, `image-${i}.raw`);
    if (!existsSync(path)) writeFileSync(path, generatedImage(i));
    return path;
  });
}

export const readImage = (path: string): Buffer => {
  const bytes = readFileSync(path);
  return bytes.subarray(0, bytes.length - (bytes.length % PAGE_BYTES));
};

export function nonZeroBytes(image: Buffer): number {
  const zero = Buffer.alloc(PAGE_BYTES);
  let bytes = 0;
  for (let at = 0; at < image.length; at += PAGE_BYTES)
    if (zero.compare(image, at, at + PAGE_BYTES) !== 0) bytes += PAGE_BYTES;
  return bytes;
}
