/**
 * A store with a model of it in memory: the bytes and the listing of every snapshot. Each command changes both, and
 * compares them.
 *
 * Invariant: after a command that was meant to fail (an interrupted copy), the model follows the store.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { LivesnapError } from '../../src/errors.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { type Channel, localChannels, type Message } from '../../src/store/copy/channel.js';
import type { CopyPlan, CopyResult } from '../../src/store/copy/copy-result.js';
import { type MessageType, remoteFailed } from '../../src/store/copy/protocol.js';
import { requestCopies, serveCopies } from '../../src/store/copy/sessions.js';
import { copySnapshots } from '../../src/store/remote/copy.js';
import { exportedSnapshots, exportSnapshot, importSnapshots } from '../../src/store/remote/export.js';
import { counted } from '../../src/store/repair/report.js';
import { Store } from '../../src/store/store.js';
import type { SnapshotSummary } from '../../src/store/types.js';
import { MemorySink, save } from './scratch.js';

const ZEROS = Buffer.alloc(PAGE_BYTES);

/** What is the same in every store that has the snapshot. Tag and stored bytes may differ. */
type Described = Omit<SnapshotSummary, 'tag' | 'storedBytes'>;

function describe({ tag, storedBytes, ...described }: SnapshotSummary): Described {
  return described;
}

/** A snapshot as it was saved. */
export class Contents {
  #pages: ReadonlySet<string> | null = null;

  constructor(
    readonly described: Described,
    readonly regions: Readonly<Record<string, Buffer>>,
  ) {}

  get id(): string {
    return this.described.id;
  }

  /** SHA-256s of its distinct pages that are not zero. */
  get pages(): ReadonlySet<string> {
    if (this.#pages) return this.#pages;
    const pages = new Set<string>();
    for (const bytes of Object.values(this.regions))
      for (let from = 0; from < bytes.length; from += PAGE_BYTES) {
        const page = Buffer.alloc(PAGE_BYTES);
        bytes.copy(page, 0, from, from + PAGE_BYTES);
        if (!page.equals(ZEROS)) pages.add(createHash('sha256').update(page).digest('base64'));
      }
    this.#pages = pages;
    return pages;
  }

  async expectIn(store: Store): Promise<void> {
    const snapshot = await store.openSnapshot(this.id);
    try {
      const sink = new MemorySink(snapshot.regions);
      await snapshot.fill(sink);
      assert.deepEqual(Object.keys(sink.contents), Object.keys(this.regions));
      for (const [name, bytes] of Object.entries(this.regions))
        assert.ok(sink.contents[name]!.equals(bytes), `${name} of snapshot ${this.id} has other bytes`);
      const state = this.described.kind === 'machine' ? 'registers' : '';
      assert.equal(Buffer.from(snapshot.metadata.state).toString(), state);
    } finally {
      snapshot.close();
    }
  }
}

interface Kept {
  readonly contents: Contents;
  tag: string | null;
}

/** An exported directory. */
export interface Exported extends Kept {
  readonly dir: string;
  readonly fingerprintBits: number;
}

export class ModelledStore {
  #store: Store;
  #kept: Kept[] = [];

  constructor(
    readonly dir: string,
    readonly fingerprintBits: number,
  ) {
    this.#store = this.#open();
  }

  #open(): Store {
    return Store.open(this.dir, { write: true, create: true, fingerprintBits: this.fingerprintBits });
  }

  close(): void {
    this.#store.close();
  }

  /** One of the snapshots, for any number. Undefined: there is none. */
  pick(which: number): Kept | undefined {
    return this.#kept[which % Math.max(1, this.#kept.length)];
  }

  #find(id: string): Kept | undefined {
    return this.#kept.find(({ contents }) => contents.id === id);
  }

  #untag(label: string | null): void {
    for (const other of this.#kept) if (other.tag === label) other.tag = null;
  }

  #add(id: string, regions: Record<string, Buffer>, tag: string | null): void {
    this.#untag(tag);
    this.#kept.push({ contents: new Contents(describe(this.#store.find(id)), regions), tag });
  }

  /** `only`: the pages to give, if the snapshot has a parent. */
  async save(
    regions: Record<string, Buffer>,
    options: { parent: string | null; only?: Record<string, number[]>; tag: string | null },
  ): Promise<void> {
    const { id } = await save(this.#store, regions, options);
    this.#add(id, regions, options.tag);
  }

  async put(bytes: Buffer, tag: string | null): Promise<void> {
    const { id } = await this.#store.put(Readable.from([bytes]), { tag, name: null });
    this.#add(id, { file: bytes }, tag);
  }

  remove(...snapshots: readonly Kept[]): void {
    const ids = new Set(snapshots.map(({ contents }) => contents.id));
    if (ids.size > 0) this.#store.remove([...ids]);
    this.#kept = this.#kept.filter(({ contents }) => !ids.has(contents.id));
  }

  setTag(kept: Kept, label: string): void {
    this.#store.setTag(kept.contents.id, label);
    this.#untag(label);
    kept.tag = label;
  }

  async gc(): Promise<void> {
    await this.#store.gc({ dryRun: false });
    await this.expectAll();
  }

  async check(): Promise<void> {
    assert.deepEqual(await this.#store.check({ readData: true }), { ok: true, problems: [] });
  }

  reopen(): void {
    this.#store.close();
    this.#store = this.#open();
  }

  /** Repairs the store. No file is damaged, so repair only rebuilds the index. */
  async repair({ loseIndex }: { loseIndex: boolean }): Promise<void> {
    this.#store.close();
    if (loseIndex)
      for (const suffix of ['', '-wal', '-shm']) rmSync(join(this.dir, `store.db${suffix}`), { force: true });
    const packs = readdirSync(join(this.dir, 'packs')).length;
    const tags = this.#kept.filter(({ tag }) => tag !== null).length;
    const { fingerprintBits } = this;
    assert.deepEqual(await Store.repair(this.dir, undefined, { fingerprintBits }), {
      actions: [
        ...(loseIndex ? ['The index could not be read.'] : []),
        `The index was rebuilt: ${counted(this.#kept.length, 'snapshot')}, ${counted(tags, 'tag')}, ${counted(packs, 'pack')}.`,
      ],
      healedChunks: 0,
      lost: [],
    });
    assert.ok(!existsSync(join(this.dir, 'quarantine')));
    this.#store = this.#open();
    await this.expectAll();
  }

  /** Copies a snapshot to another store. `asks`: the side on which the user runs livesnap. */
  async copyTo(other: ModelledStore, kept: Kept, asks: 'source' | 'destination'): Promise<void> {
    if (this.fingerprintBits !== other.fingerprintBits) {
      await this.copyOverChannel(other, kept, asks, Number.POSITIVE_INFINITY);
      return;
    }
    const [here, there] = asks === 'source' ? [this, other] : [other, this];
    const plans: CopyPlan[] = [];
    const results = await copySnapshots({
      storeDir: here.dir,
      direction: asks === 'source' ? 'to' : 'from',
      remote: there.dir,
      refs: [kept.contents.id],
      fingerprintBits: this.fingerprintBits,
      onPlan: (plan) => void plans.push(plan),
      progress: () => {},
    });
    other.#addCopy(this, kept, plans, results);
  }

  /**
   * As `copyTo`, but the connection breaks after `messages`. Then the other store has all of the snapshot, or nothing.
   */
  async copyOverChannel(
    other: ModelledStore,
    kept: Kept,
    asks: 'source' | 'destination',
    messages: number,
  ): Promise<void> {
    const [here, there] = asks === 'source' ? [this, other] : [other, this];
    const [whole, serving] = localChannels();
    const asking = new CutChannel(whole, messages);
    const plans: CopyPlan[] = [];
    const options = { compress: true, onPlan: (plan: CopyPlan) => void plans.push(plan), progress: () => {} };
    const direction = asks === 'source' ? 'to' : 'from';
    const [asked, served] = await Promise.allSettled([
      requestCopies(asking, here.#store, direction, [kept.contents.id], options),
      serveCopies(serving, () => there.#store, options),
    ]);
    for (const end of [asked, served])
      if (end.status === 'rejected')
        assert.equal((end.reason as LivesnapError).code, 'REMOTE_FAILED', end.reason.stack);
    if (asked.status === 'fulfilled') other.#addCopy(this, kept, plans, asked.value);
    else {
      assert.notEqual(messages, Number.POSITIVE_INFINITY);
      if (other.#store.list().some(({ id }) => id === kept.contents.id)) other.#receive(kept);
    }
  }

  async export(kept: Kept, dir: string): Promise<Exported> {
    const { fingerprintBits } = this;
    const plans: CopyPlan[] = [];
    const result = await exportSnapshot({
      storeDir: this.dir,
      ref: kept.contents.id,
      to: dir,
      fingerprintBits,
      onPlan: (plan) => void plans.push(plan),
      progress: () => {},
    });
    expectResult(kept, plans, [result], { isThere: false, tagSkipped: false });
    assert.deepEqual(exportedSnapshots(dir, fingerprintBits), [kept.contents.id]);
    return { ...kept, dir, fingerprintBits };
  }

  async import(exported: Exported): Promise<void> {
    const plans: CopyPlan[] = [];
    const results = await importSnapshots({
      storeDir: this.dir,
      from: exported.dir,
      fingerprintBits: this.fingerprintBits,
      onPlan: (plan) => void plans.push(plan),
      progress: () => {},
    });
    this.#addCopy(exported, exported, plans, results);
  }

  /** Adds a completed copy to the model, and checks its plan and result. */
  #addCopy(
    source: { readonly fingerprintBits: number },
    copy: Kept,
    plans: readonly CopyPlan[],
    results: readonly CopyResult[],
  ): void {
    const here = new Set(this.#kept.flatMap(({ contents }) => [...contents.pages]));
    const { isThere, tagSkipped } = this.#receive(copy);
    expectResult(copy, plans, results, { isThere, tagSkipped });
    // If fingerprints collide, only some candidates are tried. Fingerprints of another length find nothing.
    if (this.fingerprintBits < 64 || source.fingerprintBits < 64) return;
    const lacking = [...copy.contents.pages].filter((page) => !here.has(page)).length;
    assert.ok(results[0]!.sentChunks <= lacking, `${results[0]!.sentChunks} sent, ${lacking} lacking`);
  }

  /** A snapshot that the store has stays as it is. A tag is not moved from another snapshot. */
  #receive({ contents, tag }: Kept): { isThere: boolean; tagSkipped: boolean } {
    if (this.#find(contents.id)) return { isThere: true, tagSkipped: false };
    const tagSkipped = tag !== null && this.#kept.some((other) => other.tag === tag);
    this.#kept.push({ contents, tag: tagSkipped ? null : tag });
    return { isThere: false, tagSkipped };
  }

  expectList(): void {
    const order = ({ createdAt, id }: SnapshotSummary): string => `${createdAt} ${id}`;
    assert.deepEqual(
      this.#store.list().map(({ storedBytes, ...summary }) => summary),
      this.#kept
        .map(({ contents, tag }) => ({ ...contents.described, tag }) as SnapshotSummary)
        .sort((a, b) => (order(a) < order(b) ? -1 : 1)),
    );
    for (const { contents, tag } of this.#kept)
      if (tag !== null) assert.equal(this.#store.resolve(tag), contents.id);
  }

  async expectAll(): Promise<void> {
    this.expectList();
    for (const { contents } of this.#kept) await contents.expectIn(this.#store);
  }

  /** Removes all snapshots, and expects that gc leaves no file. */
  async empty(): Promise<void> {
    this.remove(...this.#kept);
    await this.gc();
    for (const folder of ['packs', 'segments', 'snapshots', 'tags'])
      assert.deepEqual(readdirSync(join(this.dir, folder)), []);
  }
}

/** An exported directory is a store with one snapshot. */
export async function expectExported({ dir, fingerprintBits, contents, tag }: Exported): Promise<void> {
  const store = Store.open(dir, { write: false, fingerprintBits });
  try {
    assert.deepEqual(
      store.list().map((summary) => [describe(summary), summary.tag]),
      [[contents.described, tag]],
    );
    await contents.expectIn(store);
    assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
  } finally {
    store.close();
  }
}

function expectResult(
  { contents }: Kept,
  plans: readonly CopyPlan[],
  results: readonly CopyResult[],
  { isThere, tagSkipped }: { isThere: boolean; tagSkipped: boolean },
): void {
  const { id, pages } = contents;
  const { sentBytes, ...result } = results[0]!;
  const { sentChunks, presentChunks } = result;
  assert.deepEqual(plans, [{ id, alreadyThere: isThere, sendChunks: sentChunks, presentChunks }]);
  assert.deepEqual([result, results.length], [{ id, sentChunks, presentChunks, tagSkipped }, 1]);
  assert.equal(sentBytes > 0, sentChunks > 0);
  // If fingerprints collide, a page may be stored several times, and each chunk is offered.
  assert.ok(isThere ? sentChunks + presentChunks === 0 : sentChunks + presentChunks >= pages.size);
}

/** The asking side's end of a channel that breaks after `messages`, counted in both directions. */
class CutChannel implements Channel {
  #left: number;

  constructor(
    readonly whole: Channel,
    messages: number,
  ) {
    this.#left = messages;
  }

  #count(): void {
    if (this.#left-- > 0) return;
    this.close();
    throw remoteFailed('was cut off');
  }

  async send(type: MessageType, ...parts: Uint8Array[]): Promise<void> {
    this.#count();
    await this.whole.send(type, ...parts);
  }

  async receive(...types: MessageType[]): Promise<Message> {
    const message = await this.whole.receive(...types);
    this.#count();
    return message;
  }

  close(): void {
    this.whole.close();
  }
}
