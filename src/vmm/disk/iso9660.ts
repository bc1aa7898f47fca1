/**
 * Encodes a tree of files as an ISO 9660 image. Names, modes and symbolic links are Rock Ridge's, and nobody but root
 * owns anything.
 *
 * Thread: any.
 *
 * Invariants:
 * - The same tree gives the same bytes.
 * - Contents of files are not read here: {@link IsoImage.files} says where they belong.
 * - There are at most 65,535 directories (asserted), because their numbers have 16 bits.
 *
 * Spec: ECMA-119 (ISO 9660); IEEE P1281 and P1282 (SUSP and RRIP, version "RRIP_1991A").
 */
import assert from 'node:assert/strict';
import { LivesnapError } from '../../errors.js';

const ISO_SECTOR_BYTES = 2048;

interface Common {
  /** As the guest sees it, without `/`. That of the root is not used. */
  readonly name: Buffer;
  readonly modifiedMs: number;
}
export interface IsoFile extends Common {
  readonly kind: 'file';
  /** Less than 4 GiB. */
  readonly sizeBytes: number;
  readonly isExecutable: boolean;
}
export interface IsoLink extends Common {
  readonly kind: 'link';
  readonly target: Buffer;
}
export interface IsoDirectory extends Common {
  readonly kind: 'directory';
  readonly entries: readonly IsoEntry[];
}
export type IsoEntry = IsoFile | IsoLink | IsoDirectory;

export interface IsoImage<File extends IsoFile = IsoFile> {
  /** A whole number of sectors. */
  readonly sizeBytes: number;
  /** The beginning of the image, up to the contents of files. */
  readonly head: Buffer;
  readonly files: readonly { readonly file: File; readonly offset: number }[];
}

/** Sectors before these are not used by the format. */
const VOLUME_SECTOR = 16;
const PATH_TABLE_SECTOR = 18;
const MAX_RECORD_BYTES = 254;
const RECORD_HEAD_BYTES = 33;
const Flags = { directory: 2 } as const;
const Mode = { file: 0o100444, executable: 0o100555, link: 0o120777, directory: 0o040555 } as const;

/** A directory that has its place. */
interface Placed {
  readonly directory: IsoDirectory;
  readonly parent: Placed;
  /** Among the entries of its parent. */
  readonly index: number;
  /** In the path table, from 1 on. */
  readonly number: number;
  sector: number;
  bytes: number;
}

const sectorsOf = (bytes: number): number => Math.ceil(bytes / ISO_SECTOR_BYTES);

/** Each number in both byte orders. */
function both32(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32LE(value, 0);
  bytes.writeUInt32BE(value, 4);
  return bytes;
}
const both16 = (value: number): Buffer => Buffer.from([value & 0xff, value >> 8, value >> 8, value & 0xff]);

/** ECMA-119 9.1.5, in UTC. */
function recordDate(ms: number): Buffer {
  const date = new Date(Math.min(Math.max(ms, Date.UTC(1900, 0)), Date.UTC(2155, 11, 31)));
  const [year, month, day] = [date.getUTCFullYear() - 1900, date.getUTCMonth() + 1, date.getUTCDate()];
  return Buffer.from([year, month, day, date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds(), 0]);
}

/** A System Use Entry. */
const use = (signature: string, ...data: Buffer[]): Buffer => {
  const body = Buffer.concat(data);
  return Buffer.concat([Buffer.from(signature, 'latin1'), Buffer.from([4 + body.length, 1]), body]);
};
const attributes = (mode: number, links: number): Buffer =>
  use('PX', both32(mode), both32(links), both32(0), both32(0));
/** In the root alone: the entries are Rock Ridge's. */
const USES_EXTENSIONS = use('SP', Buffer.from([0xbe, 0xef, 0]));
const ROCK_RIDGE = use('ER', Buffer.from([10, 0, 0, 1]), Buffer.from('RRIP_1991A', 'latin1'));

/** The parts of a symbolic link's target. */
function linkTarget(target: Buffer): Buffer {
  const text = target.toString('latin1');
  const parts = text.split('/').filter((part) => part !== '');
  const component = (flags: number, name = ''): Buffer =>
    Buffer.concat([Buffer.from([flags, name.length]), Buffer.from(name, 'latin1')]);
  const components = parts.map((part) =>
    part === '.' ? component(2) : part === '..' ? component(4) : component(0, part),
  );
  if (text.startsWith('/')) components.unshift(component(8));
  return use('SL', Buffer.from([0]), ...components);
}

function record(id: Buffer, sector: number, bytes: number, modifiedMs: number, flags: number, uses: Buffer) {
  const padded = RECORD_HEAD_BYTES + id.length + ((id.length + 1) % 2);
  const encoded = Buffer.alloc(padded + uses.length + (uses.length % 2));
  encoded[0] = encoded.length;
  both32(sector).copy(encoded, 2);
  both32(bytes).copy(encoded, 10);
  recordDate(modifiedMs).copy(encoded, 18);
  encoded[25] = flags;
  both16(1).copy(encoded, 28);
  encoded[32] = id.length;
  id.copy(encoded, RECORD_HEAD_BYTES);
  uses.copy(encoded, padded);
  return encoded;
}

/** A name for guests without Rock Ridge, in the order of the entries. */
const plainName = (index: number, kind: IsoEntry['kind']): Buffer =>
  Buffer.from(index.toString().padStart(8, '0') + (kind === 'directory' ? '' : '.;1'), 'latin1');

function entryRecord(entry: IsoEntry, index: number, sector: number, bytes: number): Buffer {
  const name = use('NM', Buffer.from([0]), entry.name);
  const uses = {
    file: () => attributes(entry.kind === 'file' && entry.isExecutable ? Mode.executable : Mode.file, 1),
    link: () => Buffer.concat([attributes(Mode.link, 1), linkTarget((entry as IsoLink).target)]),
    directory: () => attributes(Mode.directory, 2),
  }[entry.kind]();
  const flags = entry.kind === 'directory' ? Flags.directory : 0;
  const id = plainName(index, entry.kind);
  const length = RECORD_HEAD_BYTES + id.length + 1 + name.length + uses.length;
  if (length > MAX_RECORD_BYTES)
    throw new LivesnapError('USAGE', `the name or the target of ${entry.name} is too long for a share`, {
      hint: 'Names of up to 168 bytes fit. Pack the files into an archive, or give a disk image with --block.',
    });
  return record(id, sector, bytes, entry.modifiedMs, flags, Buffer.concat([name, uses]));
}

/** Records do not cross the end of a sector. */
function packed(records: readonly Buffer[]): Buffer {
  const parts: Buffer[] = [];
  let bytes = 0;
  for (const each of records) {
    const left = ISO_SECTOR_BYTES - (bytes % ISO_SECTOR_BYTES);
    const gap = each.length > left ? left : 0;
    parts.push(Buffer.alloc(gap), each);
    bytes += gap + each.length;
  }
  return Buffer.concat(parts, sectorsOf(bytes) * ISO_SECTOR_BYTES);
}

/** The directories by level, each before its children: the order of the path table. */
function directoriesOf(root: IsoDirectory): Placed[] {
  const first = { directory: root, index: 0, number: 1, sector: 0, bytes: 0 } as Placed;
  (first as { parent: Placed }).parent = first;
  const placed = [first];
  for (const parent of placed) {
    parent.directory.entries.forEach((directory, index) => {
      if (directory.kind !== 'directory') return;
      placed.push({ directory, parent, index, number: placed.length + 1, sector: 0, bytes: 0 });
    });
  }
  return placed;
}

function pathTable(placed: readonly Placed[], isBigEndian: boolean): Buffer {
  const entries = placed.map(({ number, index, sector, parent }) => {
    const id = number === 1 ? Buffer.from([0]) : plainName(index, 'directory');
    const entry = Buffer.alloc(8 + id.length + (id.length % 2));
    entry[0] = id.length;
    if (isBigEndian) {
      entry.writeUInt32BE(sector, 2);
      entry.writeUInt16BE(parent.number, 6);
    } else {
      entry.writeUInt32LE(sector, 2);
      entry.writeUInt16LE(parent.number, 6);
    }
    id.copy(entry, 8);
    return entry;
  });
  return Buffer.concat(entries);
}

/** ECMA-119 8.4. */
function volumeDescriptor(
  label: string,
  sectors: number,
  root: Placed,
  tables: readonly number[],
  tableBytes: number,
) {
  const bytes = Buffer.alloc(ISO_SECTOR_BYTES);
  bytes.write('\x01CD001\x01', 0, 'latin1');
  bytes.write('LINUX'.padEnd(32) + label.padEnd(32), 8, 'latin1');
  both32(sectors).copy(bytes, 80);
  for (const at of [120, 124]) both16(1).copy(bytes, at);
  both16(ISO_SECTOR_BYTES).copy(bytes, 128);
  both32(tableBytes).copy(bytes, 132);
  bytes.writeUInt32LE(tables[0]!, 140);
  bytes.writeUInt32BE(tables[1]!, 148);
  const { sector, directory } = root;
  const none = Buffer.alloc(0);
  record(Buffer.from([0]), sector, root.bytes, directory.modifiedMs, Flags.directory, none).copy(bytes, 156);
  bytes.fill(' ', 190, 813, 'latin1');
  // Four dates that are not given.
  for (const at of [813, 830, 847, 864]) bytes.fill('0', at, at + 16, 'latin1');
  bytes[881] = 1;
  return bytes;
}

/**
 * The image of a tree.
 * @param label at most 32 characters
 * @throws LivesnapError USAGE: a name or the target of a link is too long
 */
export function isoImage<File extends IsoFile>(root: IsoDirectory, label: string): IsoImage<File> {
  const placed = directoriesOf(root);
  assert(placed.length <= 0xffff, 'the numbers of directories have 16 bits');
  const bySource = new Map(placed.map((each) => [each.directory, each]));
  const files: { file: File; offset: number }[] = [];
  const contentsOf = (
    { directory, parent, sector, bytes, number }: Placed,
    place: (file: File) => number,
  ): Buffer => {
    const links = attributes(Mode.directory, 2);
    const self = number === 1 ? Buffer.concat([USES_EXTENSIONS, links, ROCK_RIDGE]) : links;
    const entries = directory.entries.map((entry, index) => {
      if (entry.kind === 'file') return entryRecord(entry, index, place(entry as File), entry.sizeBytes);
      if (entry.kind === 'link') return entryRecord(entry, index, 0, 0);
      const child = bySource.get(entry)!;
      return entryRecord(entry, index, child.sector, child.bytes);
    });
    return packed([
      record(Buffer.from([0]), sector, bytes, directory.modifiedMs, Flags.directory, self),
      record(
        Buffer.from([1]),
        parent.sector,
        parent.bytes,
        parent.directory.modifiedMs,
        Flags.directory,
        links,
      ),
      ...entries,
    ]);
  };

  // The length of a directory does not depend on where anything is.
  for (const each of placed) each.bytes = contentsOf(each, () => 0).length;
  const tableBytes = pathTable(placed, false).length;
  const tables = [PATH_TABLE_SECTOR, PATH_TABLE_SECTOR + sectorsOf(tableBytes)];
  let next = tables[1]! + sectorsOf(tableBytes);
  for (const each of placed) {
    each.sector = next;
    next += sectorsOf(each.bytes);
  }
  const headSectors = next;
  const directories = placed.map((each) =>
    contentsOf(each, (file) => {
      const sector = next;
      files.push({ file, offset: sector * ISO_SECTOR_BYTES });
      next += sectorsOf(file.sizeBytes);
      return sector;
    }),
  );
  const head = Buffer.alloc(headSectors * ISO_SECTOR_BYTES);
  const put = (sector: number, bytes: Buffer): number => bytes.copy(head, sector * ISO_SECTOR_BYTES);
  put(VOLUME_SECTOR, volumeDescriptor(label, next, placed[0]!, tables, tableBytes));
  put(VOLUME_SECTOR + 1, Buffer.from('\xffCD001\x01', 'latin1'));
  put(tables[0]!, pathTable(placed, false));
  put(tables[1]!, pathTable(placed, true));
  for (const [i, { sector }] of placed.entries()) put(sector, directories[i]!);
  return { sizeBytes: next * ISO_SECTOR_BYTES, head, files };
}
