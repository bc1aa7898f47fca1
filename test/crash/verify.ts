/** Looks whether a store is what the model says, then cleans it, looks again, and goes on using it. */
import { existsSync, readdirSync, readFileSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { Store } from '../../src/store/store.js';
import type { SnapshotSummary } from '../../src/store/types.js';
import { load, MemorySource, machineMetadata, noise } from '../store/scratch.js';
import { Contents } from './contents.js';
import type { World } from './model.js';
import { isExport } from './plan.js';

/** What was expected and was not so. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

const expect = (holds: boolean, message: () => string): void => {
  if (!holds) throw new Violation(message());
};

export interface Verification {
  readonly fingerprintBits: number;
  /** Before looking, delete store.db and rebuild it. */
  readonly repair: boolean;
  /** Afterwards, collect garbage, look again, and save once more. */
  readonly clean: boolean;
}

const BEFORE_GC = 'at first';

/** What a store's directory may hold when gc is done. */
const FOLDERS = new Set(['packs', 'snapshots', 'tags', 'segments', 'quarantine']);
const FILES = new Set(['store.db', 'store.db-wal', 'store.db-shm', 'lock', 'index.lock', 'reserve']);

/** Each label that a store has, with its tag. */
export type Found = ReadonlyMap<string, string | null>;

/** Looks at all stores of a disk; gives what is in each. */
export async function verifyDisk(
  disk: string,
  world: World,
  verification: Verification,
): Promise<ReadonlyMap<string, Found>> {
  const found = new Map<string, Found>();
  for (const name of world.stores.keys())
    found.set(
      name,
      (isExport(name)
        ? await verifyExport(disk, name, world, verification)
        : await verifyStore(disk, name, world, verification)) ?? new Map(),
    );
  return found;
}

/** An export is there, and whole, or not at all; one that was told to be done is there. */
async function verifyExport(
  disk: string,
  name: string,
  world: World,
  { fingerprintBits }: Verification,
): Promise<Found | null> {
  const dir = join(disk, name);
  if (!existsSync(dir)) {
    expect(world.store(name).must.length === 0, () => `the export ${name} is not there`);
    return null;
  }
  const store = Store.open(dir, { write: false, fingerprintBits });
  try {
    const list = store.list();
    expect(list.length === 1, () => `the export ${name} has ${list.length} snapshots`);
    expectSnapshots(list, world, name, false, 'exported');
    await expectWhole(store, list[0]!, world.contents, 'exported');
    const { problems } = await store.check({ readData: true });
    expect(problems.length === 0, () => `check finds in the export ${name}: ${JSON.stringify(problems)}`);
    return new Map(list.map(({ vm, tag }) => [vm!, tag]));
  } finally {
    store.close();
  }
}

/**
 * Throws a {@link Violation} when the store `name` of the disk is not what the model allows. Returns the labels that
 * are there, with their tags; null where there is no store and need be none.
 */
async function verifyStore(
  disk: string,
  name: string,
  world: World,
  { fingerprintBits, repair, clean }: Verification,
): Promise<Found | null> {
  const dir = join(disk, name);
  const model = world.store(name);
  const must = model.must;
  if (repair) {
    if (must.length === 0) return null; // it may not have come to be a store
    for (const suffix of ['', '-wal', '-shm', '-journal']) removeFile(join(dir, `store.db${suffix}`));
    await Store.repair(dir);
  }
  if (!existsSync(dir) && must.length === 0) return null;
  if (must.length > 0) {
    const reader = Store.open(dir, { write: false, fingerprintBits });
    try {
      expectSnapshots(reader.list(), world, name, repair, 'for a reader');
    } finally {
      reader.close();
    }
  }
  const store = Store.open(dir, { write: true, create: must.length === 0, fingerprintBits });
  try {
    const lookAtAll = async (when: string): Promise<void> => {
      const list = store.list();
      expectSnapshots(list, world, name, repair, when);
      for (const snapshot of list) await expectWhole(store, snapshot, world.contents, when);
      const { problems } = await store.check({ readData: true });
      // repair may take in what an unfinished save left of a pack; nothing needs it, and gc takes it away.
      const isLeft = repair && when === BEFORE_GC;
      const counting = problems.filter(({ snapshots }) => !isLeft || snapshots.length > 0);
      expect(counting.length === 0, () => `check finds ${when}: ${JSON.stringify(counting)}`);
    };
    await lookAtAll(BEFORE_GC);
    const before = store.list();
    const found = new Map(before.map(({ vm, tag }) => [vm!, tag]));
    if (!clean) return found;
    await store.gc({ dryRun: false });
    expectNoOrphans(dir, store.list());
    const again = store.list();
    expect(
      JSON.stringify(before) === JSON.stringify(again),
      () => `gc changed the list from ${JSON.stringify(before)} to ${JSON.stringify(again)}`,
    );
    await lookAtAll('after gc');
    const { deadBytes, storedBytes } = store.stats();
    // gc leaves a pack alone while a twentieth of its chunks is dead.
    expect(deadBytes <= storedBytes / 10, () => `after gc ${deadBytes} of ${storedBytes} bytes are dead`);
    await expectUsable(store, fingerprintBits);
    return found;
  } finally {
    store.close();
  }
}

function removeFile(path: string): void {
  if (existsSync(path)) unlinkSync(path);
}

function expectSnapshots(
  list: readonly SnapshotSummary[],
  world: World,
  name: string,
  repaired: boolean,
  when: string,
): void {
  const model = world.store(name);
  const listed = new Map(list.map((snapshot) => [snapshot.vm ?? '', snapshot]));
  for (const label of model.must)
    expect(listed.has(label), () => `${label} was committed and is not there (${when})`);
  for (const [label, { tag }] of listed) {
    const presence = model.snapshots.get(label);
    expect(presence !== undefined, () => `there is a snapshot ${label} that nobody saved (${when})`);
    expect(
      presence !== 'gone' || (repaired && (model.keepsRemoved || model.disturbed)),
      () => `${label} was removed and is there again (${when})`,
    );
    const allowed = model.tagsOf(label);
    expect(
      presence !== 'must' || model.tagsUnknown || allowed.has(tag) || (repaired && model.disturbed),
      () => `${label} has the tag ${tag}, not one of ${[...allowed].join(', ')} (${when})`,
    );
  }
}

async function expectWhole(
  store: Store,
  { id, vm, kind }: SnapshotSummary,
  contents: Contents,
  when: string,
): Promise<void> {
  const label = vm!;
  const [found] = Object.values(await load(store, id));
  expect(found!.equals(contents.bytes(label)), () => `${label} has other bytes than were saved (${when})`);
  if (kind !== 'machine') return;
  const snapshot = await store.openSnapshot(id);
  try {
    expect(
      Contents.state(label).equals(snapshot.metadata.state),
      () => `${label} has another state than was saved (${when})`,
    );
  } finally {
    snapshot.close();
  }
}

/** By the names on disk alone, whatever the store itself counts as an orphan. */
export function expectNoOrphans(dir: string, list: readonly SnapshotSummary[]): void {
  // What a repair has put aside is the user's.
  const names = (folder: string): string[] =>
    readdirSync(join(dir, folder))
      .filter((name) => !name.endsWith('.damaged'))
      .sort();
  for (const name of readdirSync(dir))
    expect(FOLDERS.has(name) || FILES.has(name), () => `gc leaves ${name}`);
  const ids = list.map(({ id }) => id).sort();
  expect(
    JSON.stringify(names('snapshots')) === JSON.stringify(ids),
    () => `gc leaves the snapshot files ${names('snapshots').join(' ')} for ${ids.join(' ')}`,
  );
  const tags = new Map(list.flatMap(({ id, tag }) => (tag === null ? [] : [[tag, id] as const])));
  expect(
    JSON.stringify(names('tags')) === JSON.stringify([...tags.keys()].sort()),
    () => `gc leaves the tag files ${names('tags').join(' ')} for ${[...tags.keys()].join(' ')}`,
  );
  for (const [tag, id] of tags)
    expect(
      readFileSync(join(dir, 'tags', tag), 'utf8') === `${id}\n`,
      () => `gc leaves a wrong tag file ${tag}`,
    );
  const index = new Database(join(dir, 'store.db'), { readonly: true });
  const rows = (sql: string): string => index.prepare(sql).pluck().all().join(' ');
  const hex = "printf('%08x";
  const listed = {
    packs: rows(`SELECT ${hex}-%d.pack', number, generation) FROM packs ORDER BY number`),
    segments: rows(`SELECT ${hex}.seg', number) FROM segments ORDER BY number`),
  };
  index.close();
  for (const folder of ['packs', 'segments'] as const)
    expect(
      names(folder).join(' ') === listed[folder],
      () => `gc leaves ${names(folder).join(' ')} for ${listed[folder]}`,
    );
  const packs = names('packs');
  if (ids.length === 0)
    expect(packs.length === 0, () => `gc leaves packs that nothing needs: ${packs.join(' ')}`);
}

/** What comes later works as ever: new pages, found again by a second save, and taken away without a trace. */
async function expectUsable(store: Store, fingerprintBits: number): Promise<void> {
  const before = store.list().length;
  const ram = { 'ram@0x0': noise(0xfeed, 20) };
  const ids: string[] = [];
  for (let i = 0; i < 2; i++) {
    const session = await store.beginSave({ parent: null });
    await session.store(new MemorySource(ram));
    const { id, newChunks } = await session.commit(machineMetadata({ vm: 'later' }));
    // Of chunks that collide only some are tried.
    if (fingerprintBits === 64)
      expect(newChunks === (i === 0 ? 20 : 0), () => `a later save ${i} had ${newChunks} new chunks of 20`);
    ids.push(id);
  }
  const [found] = Object.values(await load(store, ids[0]!));
  expect(found!.equals(ram['ram@0x0']), () => 'a later save has other bytes than were saved');
  store.remove(ids);
  expect(store.list().length === before, () => 'a later rm removed something else');
}
