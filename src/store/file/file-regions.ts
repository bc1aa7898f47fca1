/** Which region of a snapshot a command writes to a file. */
import { LivesnapError } from '../../errors.js';
import type { OpenSnapshot, Region } from '../../page-stream.js';
import { FILE_REGION } from './file-source.js';

/** The disks of a machine, `disk0` first. */
export const disksOf = (regions: readonly Region[]): Region[] =>
  regions
    .filter(({ name }) => /^disk\d+$/.test(name))
    .sort((a, b) => Number(a.name.slice(4)) - Number(b.name.slice(4)));

type Snapshot = Pick<OpenSnapshot, 'summary' | 'regions'>;

/** The file in a snapshot of kind `file`, or the only disk of one of kind `disk`. Errors: USAGE. */
export function fileRegionOf({ summary, regions }: Snapshot): Region {
  const { id, kind } = summary;
  const disks = disksOf(regions);
  const file = kind === 'file' ? regions.find(({ name }) => name === FILE_REGION) : undefined;
  const only = kind === 'disk' && disks.length === 1 ? disks[0] : undefined;
  const found = file ?? only;
  if (found) return found;
  const toDisk = `To write a disk of it: livesnap disk ${id} N FILE`;
  if (kind === 'disk')
    throw new LivesnapError('USAGE', `snapshot ${id} has ${disks.length} disks, not a file`, {
      hint: toDisk,
    });
  throw new LivesnapError('USAGE', `snapshot ${id} holds a machine, not a file`, {
    hint: `Use livesnap restore to restore a machine.${disks.length > 0 ? ` ${toDisk}` : ''}`,
  });
}

/** Disk `number` of a machine or disk snapshot. Null: its only disk. Errors: USAGE, NO_SUCH_REGION. */
export function diskRegionOf({ summary, regions }: Snapshot, number: number | null): Region {
  const { id, kind } = summary;
  if (kind === 'file')
    throw new LivesnapError('USAGE', `snapshot ${id} holds a file, not a machine`, {
      hint: `To write the file: livesnap get ${id} FILE`,
    });
  const disks = disksOf(regions);
  const names = disks.map(({ name }) => name).join(', ');
  if (disks.length === 0)
    throw new LivesnapError('NO_SUCH_REGION', `snapshot ${id} has no disks`, {
      hint: 'livesnap show lists the regions of a snapshot.',
    });
  if (number === null && disks.length > 1)
    throw new LivesnapError('USAGE', `snapshot ${id} has ${disks.length} disks: ${names}`, {
      hint: `Say which: livesnap disk ${id} ${disks[0]!.name.slice(4)} FILE`,
    });
  const found = number === null ? disks[0] : disks.find(({ name }) => name === `disk${number}`);
  if (!found)
    throw new LivesnapError('NO_SUCH_REGION', `snapshot ${id} has no disk ${number}`, {
      hint: `It has: ${names}.`,
    });
  return found;
}
