/** Figures of several rounds, and the bytes that they are measured on. */
import { randomFillSync } from 'node:crypto';
import { readFileSync } from 'node:fs';

const MIB = 1 << 20;

/** A quarter zero, a quarter noise, half text. */
export function mixedMemory(sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  for (let at = sizeBytes / 4; at < sizeBytes / 2; at += MIB)
    randomFillSync(bytes, at, Math.min(MIB, sizeBytes / 2 - at));
  let n = 1;
  for (let at = sizeBytes / 2; at < sizeBytes; at += 16) {
    n = (Math.imul(n, 1103515245) + 12345) >>> 0;
    bytes.write(`entry ${(n >>> 8) % 50000}`.padEnd(16), at, 'latin1');
  }
  return bytes;
}

export const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1]!;

/** `median (smallest–largest)`. */
export function spread(values: readonly number[], digits: number): string {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return `${median(values).toFixed(digits)} (${least.toFixed(digits)}–${most.toFixed(digits)})`;
}

/** The time that the main thread has had a processor, in microseconds. */
export const threadMicroseconds = (): number =>
  Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ')[0]) / 1e3;

/** The load averages of the host, which every result is to be read with. */
export const hostLoad = (): string =>
  readFileSync('/proc/loadavg', 'latin1').split(' ').slice(0, 3).join(' ');
