/** Verifies that a store is as the model says, collects garbage, verifies it again, and saves to it once more. */
import { existsSync, readdirSync, readFileSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { Store } from '../../src/store/store.js';
import type { SnapshotSummary } from '../../src/store/types.js';
import { Database } from '../sqlite.js';
import { load, MemorySource, machineMetadata, noise } from '../store/scratch.js';
import { Contents } from './contents.js';
import type { World } from './model.js';
import { isExport } from './plan.js';

/** An expectation that does not hold. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

const expect = (holds: boolean, message: () => string): void => {
  if (!holds) throw new Violation(message());
};

export interface Verification {
  readonly fingerprintBits: number;
  /** First delete store.db and rebuild it. */
  readonly repair: boolean;
  /** Afterwards collect garbage, verify again, and save once more. */
  readonly clean: boolean;
}

const BEFORE_GC = 'before gc';

/** All that a store's directory may hold after gc. */
const FOLDERS = new Set(['packs', 'snapshots', 'tags', 'segments', 'quarantine']);
const FILES = new Set(['store.db', 'store.db-wal', 'store.db-shm', 'lock', 'index.lock', 'reserve']);

/** The labels of a store's snapshots, with their tags. */
export type Found = ReadonlyMap<string, readonly string[]>;

/** Verifies all stores of a disk, and returns what each holds. Errors: {@link Violation}. */
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

/** An export is complete or does not exist. One that was reported as done exists. */
async function verifyExport(
  disk: string,
  name: string,
  world: World,
  { fingerprintBits }: Verification,
): Promise<Found | null> {
  const dir = join(disk, name);
  if (!existsSync(dir)) {
    expect(world.store(name).must.length === 0, () => `the export ${name} is missing`);
    return null;
  }
  const store = Store.open(dir, { write: false, fingerprintBits });
  try {
    const list = store.list();
    expect(list.length === 1, () => `the export ${name} has ${list.length} snapshots`);
    expectSnapshots(list, world, name, false, 'exported');
    await expectWhole(store, list[0]!, world.contents, 'exported');
    const { problems } = await store.check({ readData: true });
    expect(problems.length === 0, () => `check of the export ${name} finds ${JSON.stringify(problems)}`);
    return new Map(list.map(({ vm, tags }) => [vm!, tags]));
  } finally {
    store.close();
  }
}

/**
 * Verifies the store `name`. Returns null if there is no store and none is needed. Errors: {@link Violation}.
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
    if (must.length === 0) return null; // the store may not be complete yet
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
      // repair may list a pack of an unfinished save. Nothing needs it, and gc deletes it.
      const mayHaveLeftovers = repair && when === BEFORE_GC;
      const counting = problems.filter(({ snapshots }) => !mayHaveLeftovers || snapshots.length > 0);
      expect(counting.length === 0, () => `check finds ${when}: ${JSON.stringify(counting)}`);
    };
    await lookAtAll(BEFORE_GC);
    const before = store.list();
    const found = new Map(before.map(({ vm, tags }) => [vm!, tags]));
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
    // gc does not rewrite a pack of which less than a twentieth is dead.
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
    expect(listed.has(label), () => `${label} was committed and is missing (${when})`);
  for (const label of listed.keys()) {
    const presence = model.snapshots.get(label);
    expect(presence !== undefined, () => `the snapshot ${label} exists, but nothing saved it (${when})`);
    expect(
      presence !== 'gone' || (repaired && (model.keepsRemoved || model.disturbed)),
      () => `${label} was removed and exists again (${when})`,
    );
  }
  for (const { vm, kind, labels } of list)
    expect(
      JSON.stringify(labels) === JSON.stringify(kind === 'machine' ? Contents.labels(vm!) : {}),
      () => `${vm} has the labels ${JSON.stringify(labels)} (${when})`,
    );
  if (model.tagsUnknown || (repaired && model.disturbed)) return;
  const holders = new Map(list.flatMap(({ vm, tags }) => tags.map((tag) => [tag, vm ?? ''] as const)));
  for (const tag of new Set([...holders.keys(), ...model.holders.keys()])) {
    const holder = holders.get(tag) ?? null;
    const allowed = model.holdersOf(tag);
    expect(
      allowed.has(holder) || (holder !== null && model.snapshots.get(holder) !== 'must'),
      () => `the tag ${tag} names ${holder}, not one of ${[...allowed].join(', ')} (${when})`,
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
  const found = await load(store, id);
  expect(contents.matches(label, found), () => `${label} has other bytes than were saved (${when})`);
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

/** Judges by the names on the disk, not by what the store counts as an orphan. Errors: {@link Violation}. */
export function expectNoOrphans(dir: string, list: readonly SnapshotSummary[]): void {
  // Files that repair has set aside are for the user.
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
  const holders = new Map(list.flatMap(({ id, tags }) => tags.map((tag) => [tag, id] as const)));
  expect(
    JSON.stringify(names('tags')) === JSON.stringify([...holders.keys()].sort()),
    () => `gc leaves the tag files ${names('tags').join(' ')} for ${[...holders.keys()].join(' ')}`,
  );
  for (const [tag, id] of holders)
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
    expect(packs.length === 0, () => `gc leaves packs that no snapshot needs: ${packs.join(' ')}`);
}

/** A later save works, a second one finds all its pages, and both can be removed. */
async function expectUsable(store: Store, fingerprintBits: number): Promise<void> {
  const before = store.list().length;
  const ram = { 'ram@0x0': noise(0xfeed, 20) };
  const ids: string[] = [];
  for (let i = 0; i < 2; i++) {
    const session = await store.beginSave({ regions: [] });
    await session.store(new MemorySource(ram));
    const { id, newChunks } = await session.commit(machineMetadata({ vm: 'later' }));
    // Only some of the chunks that collide are compared.
    if (fingerprintBits === 64)
      expect(newChunks === (i === 0 ? 20 : 0), () => `later save ${i + 1} has ${newChunks} new chunks of 20`);
    ids.push(id);
  }
  const [found] = Object.values(await load(store, ids[0]!));
  expect(found!.equals(ram['ram@0x0']), () => 'a later save has other bytes than were saved');
  store.remove(ids);
  expect(store.list().length === before, () => 'a later rm removed something else');
}
