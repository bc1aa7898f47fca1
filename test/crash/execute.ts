/** Carries out the steps of a plan on the stores of a disk, and reports what became of each. */
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { LivesnapError } from '../../src/errors.js';
import { PAGE_BYTES, type SavedRegion } from '../../src/page-stream.js';
import { DIGESTS } from '../../src/store/pack/digest.js';
import { copySnapshots } from '../../src/store/remote/copy.js';
import { exportSnapshot, importSnapshots } from '../../src/store/remote/export.js';
import { Store } from '../../src/store/store.js';
import { basedOn, load, MemorySource, machineMetadata } from '../store/scratch.js';
import { Contents } from './contents.js';
import type { CopyStep, Mark, Step } from './plan.js';

/** Where steps are carried out, and who gets the marks. */
export interface Workplace {
  readonly disk: string;
  readonly fingerprintBits: number;
  readonly contents: Contents;
  mark(mark: Mark): void;
}

/** The open stores of one sequence of steps. Each is opened when it is first needed. */
class Stores {
  readonly #open = new Map<string, Store>();
  #opened = 0;

  constructor(readonly at: Workplace) {}

  get(name: string): Store {
    let store = this.#open.get(name);
    if (!store) {
      // In turn, so that a store has packs of all digests.
      const digest = DIGESTS.length - 1 - (this.#opened++ % DIGESTS.length);
      const options = { write: true, create: true, fingerprintBits: this.at.fingerprintBits, digest };
      store = Store.open(join(this.at.disk, name), options);
      this.#open.set(name, store);
    }
    return store;
  }

  close(name: string): void {
    this.#open.get(name)?.close();
    this.#open.delete(name);
  }

  closeAll(): void {
    for (const name of [...this.#open.keys()]) this.close(name);
  }
}

const idOf = (store: Store, label: string): string =>
  store.list().find(({ vm }) => vm === label)?.id ?? 'a'.repeat(32);

function diskOn(contents: Contents, store: Store, base: string | null): SavedRegion {
  const bases = base === null ? [] : [{ snapshot: idOf(store, base), region: contents.baseRegionOf(base) }];
  return { region: 'disk0', bases };
}

async function saveMachine(
  contents: Contents,
  store: Store,
  label: string,
  tags: readonly string[],
): Promise<void> {
  const { parent, dirty, disk } = contents.get(label);
  const onDisk = disk ? [diskOn(contents, store, disk.base)] : [];
  const ram = basedOn(parent === null ? null : idOf(store, parent));
  const session = await store.beginSave({ regions: [...ram, ...onDisk] });
  try {
    const bytes = contents.regions(label);
    // Without its base a region is saved in full.
    const changed = [dirty, disk?.dirty ?? []];
    const only = Object.fromEntries(
      Object.entries(bytes).map(([name, { length }], i) => [
        name,
        session.bases[i] === null
          ? Array.from({ length: Math.ceil(length / PAGE_BYTES) }, (_, page) => page)
          : [...changed[i]!],
      ]),
    );
    await session.store(new MemorySource(bytes, only, [1]));
    await session.commit(
      machineMetadata({
        vm: label,
        tags,
        memoryBytes: bytes['ram@0x0']!.length,
        diskBytes: disk?.sizeBytes ?? 0,
        machine: { labels: Contents.labels(label) },
        state: Contents.state(label),
      }),
    );
  } catch (error) {
    await session.abort();
    throw error;
  }
  await store.tidy();
}

async function copy({ do: verb, store, from, label }: CopyStep, stores: Stores): Promise<void> {
  const { disk, fingerprintBits } = stores.at;
  const [source, destination] = [join(disk, from), join(disk, store)];
  const silent = { fingerprintBits, onPlan: () => {}, progress: () => {} };
  if (verb === 'import') {
    await importSnapshots({ ...silent, storeDir: destination, from: source });
    return;
  }
  const id = idOf(stores.get(from), label);
  if (verb === 'export') await exportSnapshot({ ...silent, storeDir: source, ref: id, to: destination });
  else if (verb === 'copy to')
    await copySnapshots({ ...silent, storeDir: source, direction: 'to', remote: destination, refs: [id] });
  else
    await copySnapshots({ ...silent, storeDir: destination, direction: 'from', remote: source, refs: [id] });
}

async function carryOut(step: Step, stores: Stores): Promise<void> {
  const { contents, disk } = stores.at;
  const report = (message: string): void => stores.at.mark({ at: 'bug', step, message });
  switch (step.do) {
    case 'save':
      contents.add(step.content);
      return saveMachine(contents, stores.get(step.store), step.content.label, step.tags);
    case 'put': {
      const { content, tags, store } = step;
      contents.add(content);
      const bytes = contents.bytes(content.label);
      const pieces = [bytes.subarray(0, 5000), bytes.subarray(5000)];
      await stores.get(store).put(Readable.from(pieces), { tags, name: content.label });
      await stores.get(store).tidy();
      return;
    }
    case 'remove': {
      const store = stores.get(step.store);
      store.remove(step.labels.map((label) => idOf(store, label)));
      return;
    }
    case 'tag': {
      const store = stores.get(step.store);
      store.addTags(idOf(store, step.label), step.tags);
      return;
    }
    case 'untag': {
      const store = stores.get(step.store);
      const there = new Set(store.list().flatMap(({ tags }) => tags));
      store.removeTags(step.tags.filter((tag) => there.has(tag)));
      return;
    }
    case 'load': {
      const store = stores.get(step.store);
      const found = await load(store, idOf(store, step.label));
      if (!contents.matches(step.label, found)) report(`loaded wrong bytes of ${step.label}`);
      return;
    }
    case 'gc':
      await stores.get(step.store).gc({ dryRun: false });
      return;
    case 'recompress':
      await stores.get(step.store).gc({ dryRun: false, recompress: true });
      return;
    case 'check': {
      const { ok, problems } = await stores.get(step.store).check({ readData: true });
      if (problems.length > 0 && problems.every(({ message }) => message.includes('the disk cannot read it')))
        throw new LivesnapError('DAMAGED', problems[0]!.message); // perhaps because of a fault
      if (!ok) report(`check found ${JSON.stringify(problems)}`);
      return;
    }
    case 'repair':
      stores.close(step.store);
      await Store.repair(join(disk, step.store));
      return;
    case 'reopen':
      stores.close(step.store);
      stores.get(step.store);
      return;
    case 'copy to':
    case 'copy from':
    case 'export':
    case 'import':
      return copy(step, stores);
    case 'together': {
      const attempts = step.steps.map(async (one) => {
        const own = new Stores(stores.at);
        await attempt(one, own);
        own.closeAll();
      });
      await Promise.all(attempts);
    }
  }
}

async function attempt(step: Step, stores: Stores): Promise<void> {
  const { at } = stores;
  at.mark({ at: 'begin', step });
  try {
    await carryOut(step, stores);
    at.mark({ at: 'done', step });
  } catch (error) {
    const message = (error as Error).message;
    if (error instanceof LivesnapError) at.mark({ at: 'failed', step, code: error.code, message });
    else at.mark({ at: 'bug', step, message: `${(error as Error).stack}` });
  }
}

/** Carries out one step after the other. A failed step is reported, and the next one follows. */
export async function carryOutAll(at: Workplace, steps: readonly Step[]): Promise<void> {
  const stores = new Stores(at);
  for (const step of steps) await attempt(step, stores);
  stores.closeAll();
}
