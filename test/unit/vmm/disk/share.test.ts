import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isoImage } from '../../../../src/vmm/disk/iso9660.js';
import { openShare } from '../../../../src/vmm/disk/share.js';

const SECTOR = 2048;
const MODIFIED = Date.UTC(2026, 10, 26, 12, 34, 56);

interface Seen {
  readonly mode: number;
  readonly modified: string;
  readonly text?: string;
  readonly target?: string;
}

/** Reads an image as Linux does: ECMA-119 with Rock Ridge, and nothing of the code under test. */
class Reader {
  readonly label: string;
  readonly seen = new Map<string, Seen>();
  readonly #image: Buffer;

  constructor(image: Buffer) {
    this.#image = image;
    const volume = this.#sector(16);
    assert.equal(volume.toString('latin1', 0, 7), '\x01CD001\x01');
    assert.equal(this.#sector(17).toString('latin1', 0, 7), '\xffCD001\x01');
    assert.equal(volume.readUInt16LE(128), SECTOR);
    assert.equal(this.#number(volume, 80) * SECTOR, image.length);
    this.label = volume.toString('latin1', 40, 72).trimEnd();
    const root = volume.subarray(156, 190);
    assert.equal(root[0], 34);
    this.#directory(this.#number(root, 2), this.#number(root, 10), '', this.#number(root, 2));
    this.#pathTables(volume);
  }

  #sector(number: number): Buffer {
    return this.#image.subarray(number * SECTOR, (number + 1) * SECTOR);
  }

  /** A number in both byte orders. */
  #number(bytes: Buffer, at: number): number {
    assert.equal(bytes.readUInt32LE(at), bytes.readUInt32BE(at + 4));
    return bytes.readUInt32LE(at);
  }

  #directory(sector: number, bytes: number, path: string, parent: number): void {
    assert.equal(bytes % SECTOR, 0);
    const previous: Buffer[] = [];
    for (let at = sector * SECTOR; at < sector * SECTOR + bytes; ) {
      const length = this.#image[at]!;
      if (length === 0) {
        at = (Math.floor(at / SECTOR) + 1) * SECTOR;
        continue;
      }
      assert(Math.floor(at / SECTOR) === Math.floor((at + length - 1) / SECTOR), 'within a sector');
      const record = this.#image.subarray(at, at + length);
      at += length;
      const id = record.subarray(33, 33 + record[32]!);
      const uses = record.subarray(33 + id.length + ((id.length + 1) % 2));
      if (id.length === 1) {
        assert.equal(this.#number(record, 2), id[0] === 0 ? sector : parent);
        if (path === '' && id[0] === 0) {
          assert.equal(uses.subarray(0, 7).toString('hex'), '53500701beef00', 'SP is first');
          assert(uses.includes('RRIP_1991A'));
        }
        continue;
      }
      assert(
        previous.every((each) => Buffer.compare(each, id) < 0),
        'sorted',
      );
      previous.push(id);
      this.#entry(record, uses, path, sector);
    }
  }

  #entry(record: Buffer, uses: Buffer, path: string, parent: number): void {
    let name = '';
    let mode = 0;
    let target: string | undefined;
    for (let at = 0; at + 4 <= uses.length && uses[at + 2]! > 0; at += uses[at + 2]!) {
      const data = uses.subarray(at + 4, at + uses[at + 2]!);
      const signature = uses.toString('latin1', at, at + 2);
      if (signature === 'NM') name = data.toString('latin1', 1);
      else if (signature === 'PX') {
        mode = this.#number(data, 0);
        assert.deepEqual([this.#number(data, 16), this.#number(data, 24)], [0, 0], 'of root');
      } else if (signature === 'SL') {
        const parts: string[] = [];
        for (let part = 1; part < data.length; part += 2 + data[part + 1]!) {
          const text = data.toString('latin1', part + 2, part + 2 + data[part + 1]!);
          parts.push({ 0: text, 2: '.', 4: '..', 8: '' }[data[part]!]!);
        }
        target = parts.join('/');
      }
    }
    const [year, month, day, hours, minutes, seconds] = record.subarray(18, 24);
    const modified = new Date(Date.UTC(1900 + year!, month! - 1, day, hours, minutes, seconds)).toISOString();
    const [sector, bytes] = [this.#number(record, 2), this.#number(record, 10)];
    const full = `${path}/${name}`;
    const text =
      mode >> 12 === 8 ? this.#image.toString('latin1', sector * SECTOR, sector * SECTOR + bytes) : undefined;
    this.seen.set(full, {
      mode,
      modified,
      ...(text === undefined ? {} : { text }),
      ...(target === undefined ? {} : { target }),
    });
    assert.equal(record[25], mode >> 12 === 4 ? 2 : 0);
    if (mode >> 12 === 4) this.#directory(sector, bytes, full, parent);
  }

  /** Both tables name the same directories, parents first. */
  #pathTables(volume: Buffer): void {
    const bytes = this.#number(volume, 132);
    const little = this.#image.subarray(volume.readUInt32LE(140) * SECTOR).subarray(0, bytes);
    const big = this.#image.subarray(volume.readUInt32BE(148) * SECTOR).subarray(0, bytes);
    let count = 0;
    for (let at = 0; at < bytes; count++) {
      assert.equal(little.readUInt32LE(at + 2), big.readUInt32BE(at + 2));
      assert.equal(little.readUInt16LE(at + 6), big.readUInt16BE(at + 6));
      assert(little.readUInt16LE(at + 6) <= Math.max(count, 1));
      const start = this.#image.subarray(little.readUInt32LE(at + 2) * SECTOR);
      assert.equal(start.readUInt32LE(2), little.readUInt32LE(at + 2), 'a directory begins with itself');
      at += 8 + little[at]! + (little[at]! % 2);
    }
    const directories = [...this.seen.values()].filter(({ mode }) => mode >> 12 === 4);
    assert.equal(count, 1 + directories.length);
  }
}

describe('a share', () => {
  let dir: string;
  let top: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-share-'));
    top = join(dir, 'top');
    mkdirSync(top);
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  function write(path: string, text: string): string {
    const full = join(top, path);
    writeFileSync(full, text);
    utimesSync(full, MODIFIED / 1000, MODIFIED / 1000);
    return full;
  }

  function share(path = top): Reader {
    const { fd, sizeBytes } = openShare(path, dir);
    const image = readFileSync(`/proc/self/fd/${fd}`);
    closeSync(fd);
    assert.equal(image.length, sizeBytes);
    assert.equal(sizeBytes % 2048, 0);
    return new Reader(image);
  }

  it('tells how much of the files is copied', () => {
    write('a', 'x'.repeat(3000));
    write('b', 'y'.repeat(500));
    const told: [number, number | null][] = [];
    closeSync(openShare(top, dir, (done, total) => told.push([done, total])).fd);
    assert.deepEqual(told, [
      [3000, 3500],
      [3500, 3500],
    ]);
  });

  it('has the files of a directory, their names, times and links', () => {
    mkdirSync(join(top, 'sub/deep'), { recursive: true });
    write('empty', '');
    write('one sector', 'x'.repeat(SECTOR));
    write('sub/two sectors', 'y'.repeat(SECTOR + 1));
    chmodSync(write('sub/deep/run.sh', '#!/bin/sh\n'), 0o700);
    symlinkSync('../../one sector', join(top, 'sub/deep/relative'));
    symlinkSync('/etc/./passwd', join(top, 'absolute'));
    const { seen, label } = share();
    assert.equal(label, 'share');
    const modified = new Date(MODIFIED).toISOString();
    assert.deepEqual([...seen.keys()].sort(), [
      ...['/absolute', '/empty', '/one sector', '/sub', '/sub/deep', '/sub/deep/relative'],
      ...['/sub/deep/run.sh', '/sub/two sectors'],
    ]);
    assert.deepEqual(seen.get('/empty'), { mode: 0o100444, modified, text: '' });
    assert.deepEqual(seen.get('/one sector'), { mode: 0o100444, modified, text: 'x'.repeat(SECTOR) });
    assert.equal(seen.get('/sub/two sectors')!.text, 'y'.repeat(SECTOR + 1));
    assert.deepEqual(seen.get('/sub/deep/run.sh'), { mode: 0o100555, modified, text: '#!/bin/sh\n' });
    assert.equal(seen.get('/sub')!.mode, 0o040555);
    assert.equal(seen.get('/sub/deep/relative')!.target, '../../one sector');
    assert.equal(seen.get('/absolute')!.target, '/etc/./passwd');
  });

  it('has the label that cloud-init looks for if it has meta-data and user-data', () => {
    write('user-data', '#cloud-config\n');
    assert.equal(share().label, 'share');
    write('meta-data', 'instance-id: one\n');
    const { label, seen } = share();
    assert.equal(label, 'cidata');
    assert.equal(seen.get('/meta-data')!.text, 'instance-id: one\n');
  });

  it('has a file alone, also by a symbolic link to it', () => {
    const file = write('data.bin', 'data');
    symlinkSync(file, join(top, 'link'));
    assert.deepEqual([...share(file).seen.keys()], ['/data.bin']);
    assert.equal(share(join(top, 'link')).seen.get('/link')!.text, 'data');
  });

  it('has thousands of files, deep directories and names that are no text', () => {
    let deep = top;
    for (let i = 0; i < 40; i++) deep = join(deep, `level${i}`);
    mkdirSync(deep, { recursive: true });
    for (let i = 0; i < 3000; i++) writeFileSync(join(top, `file number ${i}`), String(i));
    const strange = Buffer.concat([Buffer.from(`${top}/`), Buffer.from([0xff, 0xfe, 0x80])]);
    writeFileSync(strange, 'strange');
    const { seen } = share();
    assert.equal(seen.size, 3041);
    for (let i = 0; i < 3000; i++) assert.equal(seen.get(`/file number ${i}`)!.text, String(i));
    assert.equal(seen.get('/\xff\xfe\x80')!.text, 'strange');
  });

  it('is the same for the same files', () => {
    write('b', 'b');
    write('a', 'a');
    const image = () => {
      const { fd } = openShare(top, dir);
      const bytes = readFileSync(`/proc/self/fd/${fd}`);
      closeSync(fd);
      return bytes;
    };
    assert(image().equals(image()));
  });

  it('refuses pipes, long names, too many bytes, and a directory that holds no images', () => {
    const fails = (expected: object, scratch = dir) => assert.throws(() => openShare(top, scratch), expected);
    execFileSync('mkfifo', [join(top, 'pipe')]);
    assert.throws(() => openShare(join(dir, 'missing'), dir), {
      code: 'NO_SUCH_FILE',
      message: /missing does not/,
    });
    fails({ code: 'USAGE', message: /pipe is neither a file, a directory nor a symbolic link/ });
    rmSync(join(top, 'pipe'));
    write('n'.repeat(169), '');
    fails({ code: 'USAGE', message: /n{169} is too long for a share/ });
    rmSync(join(top, 'n'.repeat(169)));
    write('n'.repeat(168), '');
    assert.equal(share().seen.size, 1);
    symlinkSync('t/'.repeat(200), join(top, 'link'));
    fails({ code: 'USAGE', message: /link is too long/ });
    rmSync(join(top, 'link'));
    fails({ code: 'NO_SUCH_FILE', message: /cannot hold the files of a share/ }, join(dir, 'nowhere'));
    truncateSync(write('large', ''), 2 ** 30 + 1);
    fails({ code: 'USAGE', message: /has more than 1 GiB, too much for a share/ });
  });

  it('refuses a tree of more directories than the format can number', () => {
    const entries = Array.from({ length: 0xffff }, (_, i) => ({
      ...{ kind: 'directory' as const, name: Buffer.from(`${i}`), modifiedMs: 0, entries: [] },
    }));
    const root = { kind: 'directory' as const, name: Buffer.alloc(0), modifiedMs: 0, entries };
    assert.throws(() => isoImage(root, 'share'), /16 bits/);
  });
});
