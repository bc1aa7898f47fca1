/** The size of a guest's memory, checked before anything is made for it. */
import { totalmem } from 'node:os';
import { LivesnapError } from '../errors.js';
import { formatBytes } from '../format.js';
import { PAGE_BYTES } from '../page-stream.js';

const usage = (message: string, hint: string): LivesnapError => new LivesnapError('USAGE', message, { hint });

/** At least one page, whole pages, and no more than the host has. Errors: USAGE. */
export function requireMemory(bytes: number, hostBytes: number = totalmem()): number {
  if (!Number.isSafeInteger(bytes) || bytes <= 0)
    throw usage(`a machine needs memory, not ${bytes} bytes`, 'Example: 256M, which are 268435456 bytes.');
  if (bytes % PAGE_BYTES !== 0)
    throw usage(`${bytes} bytes of memory are not a multiple of ${PAGE_BYTES}`, 'Example: 256M.');
  if (bytes > hostBytes)
    throw usage(
      `${formatBytes(bytes)} of memory is more than this host has (${formatBytes(hostBytes)})`,
      'Use less memory.',
    );
  return bytes;
}
