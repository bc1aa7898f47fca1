/** Copies from a web server that serves the files of a store, with and without ranges, honest and hostile. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import type { LivesnapError } from '../../src/errors.js';
import { Store } from '../../src/store/store.js';
import { copy, RAM, requireEqual, requireSound, smallDisk } from './copying.js';
import { dropScratch, newStore, noise, onDrop, save, scratchDir } from './scratch.js';
import { serve } from './web-server.js';

describe('a copy over http', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const ranges of [true, false])
    it(`reads a store from a server ${ranges ? 'with' : 'without'} ranges`, async function () {
      const { store: there, dir: other } = newStore(this);
      const whole = await save(there, { x: Buffer.concat([RAM, noise(8, 400)]) });
      const a = await save(there, { 'ram@0x0': RAM }, { tag: 'a' });
      there.remove([whole.id]);
      await there.gc({ dryRun: false }); // leaves a second generation of the pack
      const b = await save(there, { 'ram@0x0': Buffer.concat([RAM, noise(4, 20)]) }, { parent: a.id });
      const { address, requests } = await serve(this, other, { ranges });
      const { store: here, dir } = newStore(this);
      await copy(dir, 'from', address, ['a']);
      await requireEqual(here, there, 'a');
      requests.length = 0;
      const { results } = await copy(dir, 'from', address.slice(0, -1), [b.id]);
      await requireEqual(here, there, b.id);
      await requireSound(here);
      assert.equal(results[0]!.sentChunks, 20);
      if (ranges) {
        assert.ok(results[0]!.sentBytes < 600_000, `${results[0]!.sentBytes} bytes`);
        assert.ok(requests.length < 40, requests.join('\n'));
      }
      assert.ok(requests.every((request) => !request.startsWith('store.db')));
      for (const ref of ['none', b.id.slice(0, 8), 'f'.repeat(32)])
        await assert.rejects(copy(dir, 'from', address, [ref]), { code: 'NO_SUCH_SNAPSHOT' });
      await assert.rejects(copy(dir, 'to', address, ['a']), { code: 'USAGE' });
      for (const more of ['?x=1', '#x', '?'])
        await assert.rejects(copy(dir, 'from', address + more, ['a']), { code: 'USAGE', hint: /%23/ });
    });

  for (const ranges of [true, false])
    it(`needs little temporary space, and none afterwards (${ranges ? 'with' : 'without'} ranges)`, async function () {
      const { store: there, dir: other } = newStore(this);
      // Three packs of 4 MiB.
      const parts = [1, 2, 3].map((seed) => noise(seed, 1024));
      let parent: string | null = null;
      const ram = Buffer.alloc(3 * 1024 * 4096);
      for (const [i, part] of parts.entries()) {
        part.copy(ram, i * part.length);
        const only = { x: Array.from({ length: 1024 }, (_, page) => i * 1024 + page) };
        parent = (await save(there, { x: Buffer.from(ram) }, parent === null ? {} : { parent, only })).id;
      }
      const { address } = await serve(this, other, { ranges });
      const dir = smallDisk(this, 20 << 20);
      await copy(dir, 'from', address, [parent!]);
      const here = Store.open(dir, { write: true });
      onDrop(this, () => here.close());
      await requireEqual(here, there, parent!);
      assert.deepEqual(
        readdirSync(join(dir, 'packs')).filter((name) => !name.endsWith('.pack')),
        [],
      );

      // A full local disk is not reported as a fault of the server.
      const full = smallDisk(this, 5 << 20, 'full');
      await assert.rejects(copy(full, 'from', address, [parent!]), (error: LivesnapError) => {
        assert.equal(error.code, 'NO_SPACE', error.stack);
        assert.ok(error.message.includes(full) && !error.message.includes('remote'), error.message);
        return true;
      });
    });

  it('does not use TMPDIR', async function () {
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(there, { x: noise(1, 300) });
    const { address } = await serve(this, other);
    const { store: here, dir } = newStore(this);
    const before = process.env.TMPDIR;
    process.env.TMPDIR = join(dir, 'nowhere');
    try {
      await copy(dir, 'from', address, [id]);
    } finally {
      if (before === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before;
    }
    await requireEqual(here, there, id);
  });

  it('refuses every invalid response of the server', async function () {
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(there, { 'ram@0x0': noise(1, 200) }, { tag: 'a' });
    const isPack = (path: string): boolean => path.startsWith('packs/');
    const flip = (bytes: Buffer, at: number): Buffer => {
      const wrong = Buffer.from(bytes);
      wrong[at % bytes.length]! ^= 4;
      return wrong;
    };
    const violations: Record<string, (path: string, response: ServerResponse, bytes: Buffer) => boolean> = {
      'a tag that is a path': (path, response) => path === 'tags/a' && !!response.end('../../etc/passwd\n'),
      'a tag that is too long': (path, response) => path === 'tags/a' && !!response.end('a'.repeat(1 << 20)),
      'a snapshot with a flipped bit': (path, response, bytes) =>
        path.startsWith('snapshots/') && !!response.end(flip(bytes, 60)),
      'a pack of 2^50 bytes': (path, response) =>
        isPack(path) &&
        !!response.writeHead(206, { 'content-range': `bytes 0-63/${2 ** 50}` }).end(Buffer.alloc(64)),
      'a footer of zeros': (path, response) =>
        isPack(path) &&
        !!response.writeHead(206, { 'content-range': 'bytes 0-63/100000' }).end(Buffer.alloc(64)),
      'a pack with a flipped bit': (path, response, bytes) =>
        isPack(path) && !!response.end(flip(bytes, 5000)),
      'a pack that is too long': (path, response, bytes) =>
        isPack(path) && !!response.end(Buffer.concat([bytes, bytes])),
      'an error status': (path, response) => isPack(path) && !!response.writeHead(500).end(),
      'a truncated response': (path, response, bytes) => {
        if (!isPack(path)) return false;
        response.writeHead(200, { 'content-length': bytes.length });
        response.write(bytes.subarray(0, 1000));
        setTimeout(() => response.destroy(), 20);
        return true;
      },
    };
    const named: string[] = [];
    for (const [what, spoil] of Object.entries(violations)) {
      const { address } = await serve(this, other, { spoil });
      const { store: here, dir } = newStore(this);
      await assert.rejects(
        copy(dir, 'from', address, [/tag/.test(what) ? 'a' : id]),
        (error: LivesnapError) => {
          assert.ok(
            ['DAMAGED', 'REMOTE_FAILED', 'NO_SUCH_SNAPSHOT'].includes(error.code),
            `${what}: ${error.stack}`,
          );
          if (error.damage?.file.startsWith('packs/')) {
            named.push(what);
            assert.deepEqual([error.damage.snapshot, error.damage.region], [id, 'ram@0x0'], error.message);
          }
          return true;
        },
      );
      assert.deepEqual(here.list(), [], what);
    }
    assert.ok(named.includes('a pack with a flipped bit'), named.join());
    await assert.rejects(copy(newStore(this).dir, 'from', 'http://127.0.0.1:9/', [id]), {
      code: 'REMOTE_FAILED',
    });
  });

  it('does not follow redirects, and names their target', async function () {
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(there, { x: noise(1, 20) }, { tag: 'a' });
    const inner = await serve(this, other);
    const targets = [
      `${inner.address}tags/a`,
      '/elsewhere',
      '//127.0.0.1:1/x',
      'file:///etc/passwd',
      'data:,x',
      '\u00e9 and more than a URL has',
    ];
    for (const location of targets)
      for (const status of [301, 302, 303, 307, 308])
        for (const kind of ['tags/', 'snapshots/', 'packs/']) {
          const redirecting = await serve(this, other, {
            spoil: (path, response) =>
              path.startsWith(kind) &&
              !!response.writeHead(status, { location: encodeURI(location) }).end('moved'),
          });
          const { store: here, dir } = newStore(this);
          await assert.rejects(
            copy(dir, 'from', redirecting.address, [kind === 'tags/' ? 'a' : id]),
            (error: LivesnapError) => {
              assert.equal(error.code, 'REMOTE_FAILED');
              assert.ok(
                error.message.includes(`redirects to ${JSON.stringify(encodeURI(location))}`),
                error.message,
              );
              return true;
            },
          );
          assert.deepEqual(here.list(), []);
        }
    assert.deepEqual(inner.requests, []);
  });

  it('refuses an address with a password without repeating it', async function () {
    const dir = join(scratchDir(this), 'not-made');
    for (const address of ['http://me:secret@127.0.0.1:9/', 'https://:secret@127.0.0.1:9/'])
      await assert.rejects(copy(dir, 'from', address, ['a']), (error: LivesnapError) => {
        assert.equal(error.code, 'USAGE');
        assert.ok(!`${error.message}${error.hint}`.includes('secret'), error.message);
        return true;
      });
    assert.ok(!existsSync(dir));
  });
});
