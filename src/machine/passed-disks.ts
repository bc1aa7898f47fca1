/**
 * The open files of disks that pass from a starter to the process of a machine: descriptors become numbers of files that
 * are sent, and then descriptors of that process.
 *
 * A lock belongs to the open file, so it lasts until the machine has closed it, whoever sent it.
 */
import type { DiskRequest } from '../vmm/disk/disk-config.js';
import type { LaunchRequest } from './launch-messages.js';

type Origin = LaunchRequest['origin'];

/** For the starter: the origin as it is sent, and the files that are sent before. */
export function packDisks(origin: Origin): { readonly origin: Origin; readonly fds: readonly number[] } {
  const fds: number[] = [];
  return { origin: withDescriptors(origin, (fd) => fds.push(fd) - 1), fds };
}

/** For the machine: how many files of disks were sent. */
export function countPassed(origin: Origin): number {
  let count = 0;
  withDescriptors(origin, () => count++);
  return count;
}

/** For the machine: the origin with its own descriptors. */
export const unpackDisks = (origin: Origin, fds: readonly number[]): Origin =>
  withDescriptors(origin, (i) => fds[i]!);

function withDescriptors(origin: Origin, change: (fd: number) => number): Origin {
  if (origin.kind !== 'start') return origin;
  const disks = origin.disks.map((disk): DiskRequest => {
    const { source } = disk;
    if (source.kind !== 'file' || source.fd === undefined) return disk;
    return { ...disk, source: { ...source, fd: change(source.fd) } };
  });
  return { ...origin, disks };
}
