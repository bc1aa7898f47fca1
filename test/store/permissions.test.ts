/** Stores and files of other users: which file an error names, and who owns the files that root writes. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { createPrivate, giveToOwner } from '../../src/store/disk/layout.js';
import { Store } from '../../src/store/store.js';
import { checkoutFor } from '../other-user.js';
import { dropScratch, mountReadOnly, noise, save, scratchDir } from './scratch.js';

let child: string;

const USER = 1001;
const OTHER_USER = 1002;

/** The outcome of a verb in the child. */
interface Outcome {
  readonly code?: string;
  readonly message?: string;
  readonly hint?: string;
}

/** Runs verbs of permissions-child.ts as a user, one after the other. Each opens the store anew. */
function runAs(uid: number, dir: string, ...verbs: string[]): Outcome[] {
  const options = { uid, gid: uid, encoding: 'utf8', cwd: '/' } as const;
  return JSON.parse(execFileSync(process.execPath, [child, dir, ...verbs], options));
}

function works(uid: number, dir: string, ...verbs: string[]): void {
  const failed = runAs(uid, dir, ...verbs).filter(({ code }) => code !== undefined);
  assert.deepEqual(failed, []);
}

/** A store of USER, with one snapshot. */
function makeUsersStore(test: Mocha.Context): string {
  const base = scratchDir(test);
  chownSync(base, USER, USER);
  const dir = join(base, 'store');
  works(USER, dir, 'save');
  return dir;
}

async function withStore<T>(dir: string, work: (store: Store) => T | Promise<T>): Promise<T> {
  const store = Store.open(dir, { write: true });
  try {
    return await work(store);
  } finally {
    store.close();
  }
}

/** The paths of a store and of everything in it. */
const everything = (dir: string): string[] => [
  dir,
  ...readdirSync(dir, { recursive: true }).map((name) => join(dir, String(name))),
];

/** The errors of verbs that a user runs. Each must be NO_PERMISSION and name the file. */
function forbidden(uid: number, file: string, dir: string, ...verbs: string[]): Required<Outcome>[] {
  const outcomes = runAs(uid, dir, ...verbs);
  outcomes.forEach(({ code, message }, i) => {
    assert.equal(code, 'NO_PERMISSION', `${verbs[i]}: ${message}`);
    assert.ok(message!.includes(file), `${verbs[i]}: ${message}`);
  });
  return outcomes as Required<Outcome>[];
}

describe('a store with files of several users', () => {
  before(function () {
    if (process.geteuid!() !== 0) {
      console.warn('SKIPPED: only root can make files of other users');
      this.skip();
    }
    child = join(checkoutFor(USER), 'dist/test/store/permissions-child.js');
  });

  afterEach(function () {
    dropScratch(this);
  });

  it('gives the files that root writes to the owner of the store', async function () {
    const dir = makeUsersStore(this);
    for (const name of ['lock', 'index.lock', 'reserve']) unlinkSync(join(dir, name));
    await withStore(dir, async (store) => {
      await save(store, { ram: noise(2, 40) }, { tag: 'roots', parent: store.resolve('own') });
      await store.gc({ dryRun: false });
      for (const path of everything(dir)) assert.equal(lstatSync(path).uid, USER, path);
    });
    const pack = join(dir, 'packs', '00000077-0.pack');
    mkdirSync(pack);
    await Store.repair(dir);
    const foreign = everything(dir).filter((path) => lstatSync(path).uid !== USER);
    assert.deepEqual(foreign, [join(dir, 'quarantine', '00000077-0.pack')], 'except what the test created');
    works(USER, dir, 'read', 'save', 'rm', 'gc', 'check', 'repair');
  });

  it('does not give away files that root writes elsewhere through a link', function () {
    const base = scratchDir(this);
    const roots = join(base, 'roots');
    const users = join(base, 'users');
    for (const path of [roots, users]) mkdirSync(path);
    chownSync(users, USER, USER);
    symlinkSync(roots, join(users, 'packs'));
    const path = join(users, 'packs', 'file');
    const fd = createPrivate(path);
    try {
      giveToOwner(join(users, 'file'), fd); // as if the link had been a directory of the user when it was checked
    } finally {
      closeSync(fd);
    }
    assert.equal(lstatSync(join(roots, 'file')).uid, 0);
  });

  for (const folder of ['packs', 'snapshots'])
    it(`names an unreadable file of root in ${folder}/, and the remedy`, function () {
      const dir = makeUsersStore(this);
      const [name] = readdirSync(join(dir, folder)) as [string];
      chownSync(join(dir, folder, name), 0, 0);
      for (const { message, hint } of forbidden(USER, name, dir, 'read', 'check', 'gc', 'repair')) {
        assert.match(message, /owner root, mode 0600/);
        assert.equal(hint, `Give the store back to its owner: sudo chown -R ${USER}:${USER} ${dir}`);
      }
      assert.deepEqual(readdirSync(join(dir, folder)), [name]);
    });

  for (const name of ['store.db', 'store.db-wal', 'lock', 'index.lock', 'tags'])
    it(`names ${name} if root owns it`, function () {
      const dir = makeUsersStore(this);
      const path = join(dir, name);
      if (name.endsWith('-wal')) writeFileSync(path, '', { mode: 0o600 });
      chownSync(path, 0, 0);
      forbidden(USER, path, dir, 'tag');
      chmodSync(path, name === 'tags' ? 0o755 : 0o644);
      works(USER, dir, 'list', 'read');
    });

  it('names a directory of root in which files must be created or deleted', function () {
    const dir = makeUsersStore(this);
    const packs = join(dir, 'packs');
    chownSync(packs, 0, 0);
    chmodSync(packs, 0o755);
    for (const { message } of forbidden(USER, packs, dir, 'save'))
      assert.match(message, /^no permission to open \S+\.pack in \S+ \(owner root, mode 0755\)$/);
    works(USER, dir, 'rm');
    for (const { message } of forbidden(USER, packs, dir, 'gc'))
      assert.match(message, /^no permission to delete \S+\.pack in \S+ \(owner root, mode 0755\)$/);
  });

  it('refuses to put a file that the user may not read, naming that file', function () {
    const dir = makeUsersStore(this);
    const secret = join(dir, '..', 'secret');
    writeFileSync(secret, '', { mode: 0o600 });
    for (const { hint } of forbidden(USER, `cannot read ${secret}`, dir, 'put'))
      assert.equal(hint, 'Run livesnap as a user who can read it.');
  });

  it('tells another user who owns it, not that it is read-only', function () {
    const dir = makeUsersStore(this);
    chmodSync(join(dir, '..'), 0o711);
    for (const { message, hint } of forbidden(OTHER_USER, dir, dir, 'list', 'read', 'tag', 'repair')) {
      assert.match(message, /owner user 1001, mode 0700/);
      assert.match(hint, /as the owner of the store/);
    }
    chmodSync(join(dir, '..'), 0o700);
    forbidden(OTHER_USER, join(dir, '..'), dir, 'list', 'repair');
  });

  it('lets another user read it if its modes allow that, and names the directory on a write', function () {
    const dir = makeUsersStore(this);
    chmodSync(join(dir, '..'), 0o755);
    for (const path of everything(dir)) chmodSync(path, lstatSync(path).isDirectory() ? 0o755 : 0o644);
    works(OTHER_USER, dir, 'list', 'read', 'gc --dry-run');
    forbidden(OTHER_USER, `write ${dir} `, dir, 'tag', 'gc');
  });

  it('on a read-only file system is reported as such, and gc --dry-run works on it', async function () {
    const dir = makeUsersStore(this);
    works(USER, dir, 'save', 'rm');
    mountReadOnly(this, dir);
    await assert.rejects(
      withStore(dir, () => {}),
      { code: 'READ_ONLY', message: `the store ${dir} is on a read-only file system` },
    );
    works(USER, dir, 'gc --dry-run');
  });
});
