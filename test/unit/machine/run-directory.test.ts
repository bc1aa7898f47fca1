import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { chmod, chown, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LivesnapError } from '../../../src/errors.js';
import {
  checkMachineName,
  checkRunRoot,
  claimFreeName,
  drawName,
  listRunDirectories,
  RunDirectory,
} from '../../../src/machine/run-directory.js';

const hasCode = (code: string) => (error: unknown) => error instanceof LivesnapError && error.code === code;

describe('run directories', () => {
  let base: string;
  let root: string;
  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), 'livesnap-run-'));
    root = join(base, 'livesnap');
  });
  afterEach(() => rmSync(base, { recursive: true, force: true }));

  it('accept names that are safe as a directory and refuse all others', () => {
    for (const good of ['a', 'A9', 'web.1_x-y', 'a'.repeat(63)]) assert.equal(checkMachineName(good), good);
    for (const bad of ['', '.', '..', '.a', '-a', '_a', 'a/b', 'a b', 'a\n', 'ä', 'a'.repeat(64)])
      assert.throws(() => checkMachineName(bad), hasCode('USAGE'), JSON.stringify(bad));
    assert.equal(checkMachineName(drawName()).length > 4, true);
  });

  it('must belong to the user alone: links, files and open modes are refused', async () => {
    await checkRunRoot(root);
    assert.equal((await stat(root)).mode & 0o777, 0o700);
    await chmod(root, 0o750);
    await assert.rejects(checkRunRoot(root), /open to others \(mode 750\)/);
    if (process.getuid!() === 0) {
      await chmod(root, 0o700);
      await chown(root, 65_534, 65_534);
      await assert.rejects(checkRunRoot(root), /belongs to user 65534/);
    }
    rmSync(root, { recursive: true });
    symlinkSync(base, root);
    await assert.rejects(checkRunRoot(root), /symbolic link/);
    rmSync(root);
    writeFileSync(root, '');
    await assert.rejects(checkRunRoot(root), /not a directory/);
  });

  it('of another user are refused before anything in them is read', async function () {
    if (process.getuid!() !== 0) {
      process.stderr.write('    SKIPPED, not tested: only root can give a directory away\n');
      this.skip();
    }
    await checkRunRoot(root);
    mkdirSync(join(root, 'a'));
    writeFileSync(join(root, 'a', 'lock'), '');
    await chown(root, 65_534, 65_534);
    const refused = { code: 'SYSTEM', message: /belongs to user 65534/, hint: /XDG_RUNTIME_DIR/ };
    await assert.rejects(listRunDirectories(root), refused);
    await assert.rejects(new RunDirectory(root, 'a').look(), refused);
    await assert.rejects(new RunDirectory(root, 'a').watchEnd(), refused);
  });

  it('that cannot be used are named, with a hint', async () => {
    const refused = { code: 'SYSTEM', hint: /XDG_RUNTIME_DIR/ };
    const nowhere = join(base, 'missing', 'livesnap');
    assert.deepEqual(await listRunDirectories(nowhere), []);
    assert.equal(await new RunDirectory(nowhere, 'a').look(), 'absent');
    await assert.rejects(new RunDirectory(nowhere, 'a').claim(), refused);
    const long = join(base, 'x'.repeat(300));
    await assert.rejects(listRunDirectories(long), refused);
    await assert.rejects(new RunDirectory(long, 'a').look(), refused);
    await checkRunRoot(root);
    mkdirSync(join(root, 'a'));
    symlinkSync('/etc/passwd', join(root, 'a', 'lock'));
    await assert.rejects(new RunDirectory(root, 'a').look(), refused);
    await assert.rejects(new RunDirectory(root, 'a').claim(), refused);
  });

  it('cannot be claimed where something else has the name', async () => {
    await checkRunRoot(root);
    writeFileSync(join(root, 'file'), '');
    symlinkSync(join(base, 'missing'), join(root, 'link'));
    for (const name of ['file', 'link'])
      await assert.rejects(new RunDirectory(root, name).claim(), {
        code: 'SYSTEM',
        message: `the run directory ${join(root, name)} is not a directory`,
        hint: /--name/,
      });
  });

  it('belong to one process at a time and are free again after removal', async () => {
    const place = new RunDirectory(root, 'a');
    assert.equal(await place.look(), 'absent');
    const mine = await place.claim();
    assert.equal(await place.look(), 'live');
    await assert.rejects(place.claim(), hasCode('NAME_IN_USE'));
    await mine.remove();
    assert.deepEqual(readdirSync(root), []);
    const again = await place.claim();
    mine.release();
    assert.equal(await place.look(), 'live', 'the old lock is of an inode that has gone');
    again.release();
    assert.equal(await place.look(), 'dead');
  });

  it('are removed only by the process that holds them', async () => {
    const place = new RunDirectory(root, 'a');
    const first = await place.claim();
    await first.remove();
    const second = await place.claim();
    await first.remove();
    assert.equal(await place.look(), 'live');
    first.release();
    second.release();
  });

  it('are not changed by a process whose own directory was removed', async () => {
    const record = {
      id: '0'.repeat(32),
      labels: {},
      memoryBytes: 1,
      cpus: 1,
      startedAt: '',
      snapshot: null,
      port: null,
      failure: null,
    };
    const place = new RunDirectory(root, 'a');
    const first = await place.claim();
    rmSync(place.path, { recursive: true });
    await first.writeRecord({ ...record, name: 'a', pid: 1 });
    assert.equal(existsSync(place.path), false);
    const second = await place.claim();
    await second.writeRecord({ ...record, name: 'a', pid: 2 });
    await first.writeRecord({ ...record, name: 'a', pid: 1 });
    assert.equal((await place.readRecord())?.pid, 2);
    first.release();
    second.release();
  });

  it('of a killed process are dead, keep the record, and are emptied when claimed', async () => {
    const script = `
      import { openSync } from 'node:fs';
      import { RunDirectory } from ${JSON.stringify(new URL('../../../src/machine/run-directory.js', import.meta.url).href)};
      const mine = await new RunDirectory(${JSON.stringify(root)}, 'a').claim();
      await mine.writeRecord({ id: "0".repeat(32), labels: {}, name: "a", pid: process.pid, memoryBytes: 1, cpus: 1, startedAt: '', snapshot: null, port: null, failure: null });
      console.log('claimed');
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    const place = new RunDirectory(root, 'a');
    assert.equal(await place.look(), 'live');
    const ended = await place.watchEnd();
    child.kill('SIGKILL');
    assert.equal(await ended(10_000), true);
    assert.equal(await place.look(), 'dead');
    assert.equal((await place.readRecord())?.pid, child.pid);
    const mine = await place.claim();
    assert.equal(existsSync(place.recordFile), false);
    mine.release();
  });

  it('are claimed by exactly one of many processes at once', async () => {
    const script = `
      import { RunDirectory } from ${JSON.stringify(new URL('../../../src/machine/run-directory.js', import.meta.url).href)};
      const place = new RunDirectory(${JSON.stringify(root)}, 'a');
      let won = 0;
      for (let i = 0; i < 40; i++) {
        try {
          const mine = await place.claim();
          if ((await place.look()) !== 'live') throw new Error('held but not locked');
          const witness = (await import('node:fs')).openSync(place.path + '/witness', 'wx');
          (await import('node:fs')).closeSync(witness);
          await mine.remove();
          mine.release();
          won++;
        } catch (error) { if (error.code !== 'NAME_IN_USE') throw error; }
      }
      console.log(won);`;
    const run = () =>
      new Promise<number>((resolve, reject) => {
        const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        let out = '';
        child.stdout.on('data', (part) => {
          out += part;
        });
        child.on('exit', (status) =>
          status === 0 ? resolve(Number(out)) : reject(new Error(`exit ${status}`)),
        );
      });
    const won = await Promise.all([run(), run(), run()]);
    assert.ok(
      won.every((count) => count > 0),
      String(won),
    );
    assert.deepEqual(readdirSync(root), []);
  });

  it('are claimed under the first free name of those offered', async () => {
    const names = ['a', 'a', 'b'];
    const first = await new RunDirectory(root, 'a').claim();
    const found = await claimFreeName(root, () => names.shift()!);
    assert.equal(found.name, 'b');
    assert.deepEqual(
      (await listRunDirectories(root)).map((place) => place.name),
      ['a', 'b'],
    );
    first.release();
    found.release();
  });

  it('are listed without entries that are no machine', async () => {
    assert.deepEqual(await listRunDirectories(root), []);
    mkdirSync(join(root, '.grave'), { recursive: true, mode: 0o700 });
    execFileSync('chmod', ['700', root]);
    assert.deepEqual(await listRunDirectories(root), []);
  });
});
