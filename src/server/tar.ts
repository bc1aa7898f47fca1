/**
 * Archives of stores: a directory with packs, snapshots, tags and an index, as a tar archive (POSIX.1-1988, ustar).
 *
 * Invariants of reading, because an archive comes from anyone:
 * - Only regular files and directories are taken, under the names that a store has, each once, in a new directory.
 * - The number of entries and the bytes of files are bounded, and checked before anything is written.
 * - Nothing is taken of an archive that is cut short or has a wrong checksum.
 */
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { LivesnapError } from '../errors.js';

const BLOCK_BYTES = 512;
/** Eleven octal digits. */
const MAX_FILE_BYTES = 8 * 2 ** 30 - 1;
/** Directories count, too: an archive of them alone would never end. */
const MAX_ENTRIES = 100_000;
const FOLDERS = ['packs', 'segments', 'snapshots', 'tags'];
const NAME = '[A-Za-z0-9][A-Za-z0-9._-]{0,98}';
/** With or without a directory before it, as `tar` writes it. */
const FILE = new RegExp(
  `^(?:\\./)?(?:${NAME}/)??((?:store\\.db|lock|index\\.lock)|(?:${FOLDERS.join('|')})/${NAME})$`,
);
const FOLDER = new RegExp(`^(?:\\./?|(?:\\./)?(?:${NAME}/)?(?:(?:${FOLDERS.join('|')})/?)?)$`);

const damaged = (what: string): LivesnapError =>
  new LivesnapError('BAD_IMAGE', `the archive ${what}`, {
    hint: 'Make it from an exported directory: tar --format=ustar -C DIR -cf FILE .',
  });

/** The header of a regular file (type 0). */
function headerOf(name: string, sizeBytes: number): Buffer {
  const header = Buffer.alloc(BLOCK_BYTES);
  header.write(name, 0, 100, 'latin1');
  header.write('0000600\0', 100, 'latin1');
  header.write('0000000\0', 108, 'latin1');
  header.write('0000000\0', 116, 'latin1');
  header.write(`${sizeBytes.toString(8).padStart(11, '0')}\0`, 124, 'latin1');
  header.write(`${'0'.repeat(11)}\0`, 136, 'latin1');
  header.write('        ', 148, 'latin1');
  header.write('0', 156, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  header.write(`${checksumOf(header).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

/** The sum of the bytes of a header, with spaces in the place of the checksum. */
function checksumOf(header: Buffer): number {
  let sum = 0;
  for (let i = 0; i < BLOCK_BYTES; i++) sum += i >= 148 && i < 156 ? 0x20 : header[i]!;
  return sum;
}

const paddingOf = (sizeBytes: number): number => (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;

/** The archive of an exported directory, below `prefix/`. Errors: those of the system. */
export async function* tarOf(dir: string, prefix: string): AsyncGenerator<Buffer> {
  const names = [
    ...(await readdir(dir)),
    ...(
      await Promise.all(
        FOLDERS.map(async (folder) =>
          (await readdir(join(dir, folder)).catch(() => [])).map((name) => `${folder}/${name}`),
        ),
      )
    ).flat(),
  ].filter((name) => FILE.test(name));
  for (const name of names.sort()) {
    const { size } = await stat(join(dir, name));
    if (size > MAX_FILE_BYTES) throw damaged(`cannot have the file ${name} of ${size} bytes`);
    yield headerOf(`${prefix}/${name}`, size);
    let sent = 0;
    for await (const part of createReadStream(join(dir, name), { end: Math.max(0, size - 1) })) {
      if (size === 0) break;
      sent += (part as Buffer).length;
      yield part as Buffer;
    }
    if (sent !== size) throw new LivesnapError('SYSTEM', `the file ${name} changed while it was read`);
    yield Buffer.alloc(paddingOf(size));
  }
  yield Buffer.alloc(2 * BLOCK_BYTES);
}

/** Cuts a stream into pieces of the sizes that are asked for. */
class Pieces {
  readonly #parts: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(stream: AsyncIterable<Buffer>) {
    this.#parts = stream[Symbol.asyncIterator]();
  }

  /** At most `mostBytes`, and at least 1. Errors: BAD_IMAGE (the stream has ended). */
  async some(mostBytes: number): Promise<Buffer> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#parts.next();
      if (done) throw damaged('is cut short');
      this.#rest = value;
    }
    const piece = this.#rest.subarray(0, mostBytes);
    this.#rest = this.#rest.subarray(piece.length);
    return piece;
  }

  async exactly(bytes: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (let left = bytes; left > 0; ) {
      const piece = await this.some(left);
      pieces.push(piece);
      left -= piece.length;
    }
    return Buffer.concat(pieces);
  }

  /** No more is read. */
  async close(): Promise<void> {
    await this.#parts.return?.();
  }

  /** Reads to the end of the stream, so that the sender can finish. */
  async drain(mostBytes: number): Promise<void> {
    for (let left = mostBytes; left > 0; ) {
      const { done, value } = await this.#parts.next();
      if (done) return;
      left -= value.length;
    }
  }
}

function octal(header: Buffer, at: number, length: number): number {
  const text = header
    .toString('latin1', at, at + length)
    .replace(/[\0 ]+$/, '')
    .trim();
  if (!/^[0-7]{1,12}$/.test(text)) throw damaged('has a header that is not ustar');
  return Number.parseInt(text, 8);
}

const textAt = (header: Buffer, at: number, length: number): string => {
  const text = header.toString('latin1', at, at + length);
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
};

/**
 * Writes the files of an archive to `dir`, which is empty. Errors: BAD_IMAGE (it is no archive of a store), NO_SPACE (it
 * is larger than `maxBytes`), and those of the system.
 */
export async function untar(archive: AsyncIterable<Buffer>, dir: string, maxBytes: number): Promise<void> {
  const pieces = new Pieces(archive);
  try {
    for (const folder of FOLDERS) await mkdir(join(dir, folder), { mode: 0o700 });
    await writeEntries(pieces, dir, maxBytes);
    await pieces.drain(1 << 20); // archives are padded
  } finally {
    await pieces.close();
  }
}

async function writeEntries(pieces: Pieces, dir: string, maxBytes: number): Promise<void> {
  let leftBytes = maxBytes;
  let entries = 0;
  for (;;) {
    const header = await pieces.exactly(BLOCK_BYTES);
    if (header.every((byte) => byte === 0)) return;
    if (++entries > MAX_ENTRIES) throw damaged(`has more than ${MAX_ENTRIES} entries`);
    if (octal(header, 148, 8) !== checksumOf(header)) throw damaged('has a wrong checksum');
    const prefix = textAt(header, 345, 155);
    const name = prefix === '' ? textAt(header, 0, 100) : `${prefix}/${textAt(header, 0, 100)}`;
    const size = octal(header, 124, 12);
    const type = String.fromCharCode(header[156]!);
    if (type === '5' && size === 0 && FOLDER.test(name)) continue;
    const [, path] = FILE.exec(name) ?? [];
    if ((type !== '0' && type !== '\0') || path === undefined)
      throw damaged(`has ${JSON.stringify(name.slice(0, 100))}, which no exported directory has`);
    leftBytes -= size;
    if (leftBytes < 0)
      throw new LivesnapError('NO_SPACE', `the archive has more than ${maxBytes} bytes`, {
        hint: 'Start the server with a larger --max-import.',
      });
    await writeFile(join(dir, path), size, pieces);
    await pieces.exactly(paddingOf(size));
  }
}

async function writeFile(path: string, sizeBytes: number, pieces: Pieces): Promise<void> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path, 'wx', 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw damaged('has a file twice');
    throw error;
  }
  try {
    for (let left = sizeBytes; left > 0; ) {
      const piece = await pieces.some(Math.min(left, 1 << 20));
      await file.writeFile(piece);
      left -= piece.length;
    }
  } finally {
    await file.close();
  }
}
