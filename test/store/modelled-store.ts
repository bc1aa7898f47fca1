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
import { formatCount } from '../../src/format.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { type Channel, localChannels, type Message } from '../../src/store/copy/channel.js';
import type { CopyPlan, CopyResult } from '../../src/store/copy/copy-result.js';
import { type MessageType, remoteFailed } from '../../src/store/copy/protocol.js';
import { requestCopies, serveCopies } from '../../src/store/copy/sessions.js';
import { DIGESTS } from '../../src/store/pack/digest.js';
import { copySnapshots } from '../../src/store/remote/copy.js';
import { exportedSnapshots, exportSnapshot, importSnapshots } from '../../src/store/remote/export.js';
import { Store } from '../../src/store/store.js';
import type { SaveResult, SnapshotSummary } from '../../src/store/types.js';
import { MemorySink, save } from './scratch.js';

const ZEROS = Buffer.alloc(PAGE_BYTES);

/** What is the same in every store that has the snapshot. Tags and stored bytes may differ. */
type Described = Omit<SnapshotSummary, 'tags' | 'storedBytes'>;

function describe({ tags, storedBytes, ...described }: SnapshotSummary): Described {
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
  /** Sorted. */
  tags: readonly string[];
}

/** What became of a copy. */
interface Received {
  readonly isThere: boolean;
  readonly skippedTags: readonly string[];
}

const sortedOnce = (labels: readonly string[]): string[] => [...new Set(labels)].sort();

/** An exported directory. */
export interface Exported extends Kept {
  readonly dir: string;
  readonly fingerprintBits: number;
}

export class ModelledStore {
  #store: Store;
  #opened = 0;
  #kept: Kept[] = [];

  constructor(
    readonly dir: string,
    readonly fingerprintBits: number,
  ) {
    this.#store = this.#open();
  }

  /** Each time with another digest for new packs, so that a store has packs of all. */
  #open(): Store {
    const digest = DIGESTS.length - 1 - (this.#opened++ % DIGESTS.length);
    const { fingerprintBits } = this;
    return Store.open(this.dir, { write: true, create: true, fingerprintBits, digest });
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

  #holderOf(tag: string): Kept | undefined {
    return this.#kept.find(({ tags }) => tags.includes(tag));
  }

  #untag(labels: readonly string[]): void {
    for (const kept of this.#kept) kept.tags = kept.tags.filter((tag) => !labels.includes(tag));
  }

  /** The tags that a save or `addTags` is about to move to the snapshot `id`. */
  #moving(labels: readonly string[], id: string | null): { tag: string; from: string }[] {
    return sortedOnce(labels).flatMap((tag) => {
      const from = this.#holderOf(tag)?.contents.id;
      return from === undefined || from === id ? [] : [{ tag, from }];
    });
  }

  #add(
    { id, tags, movedTags }: SaveResult,
    regions: Record<string, Buffer>,
    labels: readonly string[],
  ): void {
    assert.deepEqual(
      { tags, movedTags },
      { tags: sortedOnce(labels), movedTags: this.#moving(labels, null) },
    );
    this.#untag(labels);
    this.#kept.push({ contents: new Contents(describe(this.#store.find(id)), regions), tags });
  }

  /** `only`: the pages to give, if the snapshot has a parent. */
  async save(
    regions: Record<string, Buffer>,
    options: { parent: string | null; only?: Record<string, number[]>; tags: readonly string[] },
  ): Promise<void> {
    this.#add(await save(this.#store, regions, options), regions, options.tags);
  }

  async put(bytes: Buffer, tags: readonly string[]): Promise<void> {
    this.#add(await this.#store.put(Readable.from([bytes]), { tags, name: null }), { file: bytes }, tags);
  }

  remove(...snapshots: readonly Kept[]): void {
    const ids = new Set(snapshots.map(({ contents }) => contents.id));
    if (ids.size > 0)
      assert.deepEqual(
        this.#store.remove([...ids]),
        [...ids].map((id) => ({ id, tags: this.#find(id)!.tags })),
      );
    this.#kept = this.#kept.filter(({ contents }) => !ids.has(contents.id));
  }

  /** Removes a snapshot by some of its tags. That is refused if it has others. */
  removeTagged(kept: Kept, labels: readonly string[]): void {
    if (labels.length === kept.tags.length) {
      assert.deepEqual(this.#store.remove(labels), [{ id: kept.contents.id, tags: kept.tags }]);
      this.#kept = this.#kept.filter((other) => other !== kept);
    } else assert.throws(() => this.#store.remove(labels), { code: 'HAS_OTHER_TAGS' });
  }

  addTags(kept: Kept, labels: readonly string[]): void {
    const { id } = kept.contents;
    const movedTags = this.#moving(labels, id);
    const tags = sortedOnce([...kept.tags, ...labels]);
    assert.deepEqual(this.#store.addTags(id, labels), { id, tags, movedTags });
    this.#untag(labels);
    kept.tags = tags;
  }

  /** Removes tags. If one of them does not exist, none is removed. */
  removeTags(labels: readonly string[]): void {
    const removed = [...new Set(labels)].map((tag) => ({ tag, id: this.#holderOf(tag)?.contents.id }));
    if (removed.some(({ id }) => id === undefined)) {
      assert.throws(() => this.#store.removeTags(labels), { code: 'NO_SUCH_TAG' });
      return;
    }
    assert.deepEqual(this.#store.removeTags(labels), removed);
    this.#untag(labels);
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
    const tags = this.#kept.flatMap((kept) => kept.tags).length;
    const { fingerprintBits } = this;
    assert.deepEqual(await Store.repair(this.dir, undefined, { fingerprintBits }), {
      actions: [
        ...(loseIndex ? ['The index could not be read.'] : []),
        `The index was rebuilt: ${formatCount(this.#kept.length, 'snapshot')}, ${formatCount(tags, 'tag')}, ${formatCount(packs, 'pack')}.`,
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
    expectResult(kept, plans, [result], { isThere: false, skippedTags: [] });
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
    expectResult(copy, plans, results, this.#receive(copy));
    // If fingerprints collide, only some candidates are tried. Fingerprints of another length find nothing.
    if (this.fingerprintBits < 64 || source.fingerprintBits < 64) return;
    const lacking = [...copy.contents.pages].filter((page) => !here.has(page)).length;
    assert.ok(results[0]!.sentChunks <= lacking, `${results[0]!.sentChunks} sent, ${lacking} lacking`);
  }

  /** A snapshot that the store has stays as it is. A tag is not moved from another snapshot. */
  #receive({ contents, tags }: Kept): Received {
    if (this.#find(contents.id)) return { isThere: true, skippedTags: [] };
    const skippedTags = tags.filter((tag) => this.#holderOf(tag) !== undefined);
    this.#kept.push({ contents, tags: tags.filter((tag) => !skippedTags.includes(tag)) });
    return { isThere: false, skippedTags };
  }

  expectList(): void {
    const order = ({ createdAt, id }: SnapshotSummary): string => `${createdAt} ${id}`;
    assert.deepEqual(
      this.#store.list().map(({ storedBytes, ...summary }) => summary),
      this.#kept
        .map(({ contents, tags }) => ({ ...contents.described, tags }) as SnapshotSummary)
        .sort((a, b) => (order(a) < order(b) ? -1 : 1)),
    );
    for (const { contents, tags } of this.#kept)
      for (const tag of tags) assert.equal(this.#store.resolve(tag), contents.id);
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
export async function expectExported({ dir, fingerprintBits, contents, tags }: Exported): Promise<void> {
  const store = Store.open(dir, { write: false, fingerprintBits });
  try {
    assert.deepEqual(
      store.list().map((summary) => [describe(summary), summary.tags]),
      [[contents.described, tags]],
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
  { isThere, skippedTags }: Received,
): void {
  const { id, pages } = contents;
  const { sentBytes, ...result } = results[0]!;
  const { sentChunks, presentChunks } = result;
  assert.deepEqual(plans, [{ id, alreadyThere: isThere, sendChunks: sentChunks, presentChunks }]);
  assert.deepEqual([result, results.length], [{ id, sentChunks, presentChunks, skippedTags }, 1]);
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
