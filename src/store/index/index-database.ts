/**
 * The index of a store: the queries and transactions of the SQLite database `store.db` (docs/format.md, "Index").
 *
 * Invariants:
 * - Everything in it can be rebuilt from the other files of the store.
 * - No statement runs per page or per chunk.
 * - A write is one immediate transaction at synchronous=EXTRA, and no row is returned unchecked (connection.ts).
 */
import { hash } from 'node:crypto';
import type BetterSqlite3 from 'better-sqlite3';
import { LivesnapError } from '../../errors.js';
import type { Labels } from '../../labels.js';
import type { SnapshotSummary } from '../../page-stream.js';
import type { DamageError } from '../disk/damage.js';
import { DATABASE, MAX_NUMBER } from '../disk/layout.js';
import { storeError } from '../disk/store-error.js';
import type { SegmentRow } from '../segment/segment-file.js';
import { labelsOf, pauseOf } from '../snapshot/description.js';
import { readSnapshotFile, type SnapshotFile } from '../snapshot/snapshot-file.js';
import type { MovedTag, RemovedSnapshot, Tag, TaggedSnapshot } from '../types.js';
import { type Connection, type OnInvalidRow, throwProblem } from './connection.js';
import { damagedTable } from './index-rows.js';
import { createIndex, openIndex } from './open-index.js';

/** What the index has of a snapshot. Its tags are in another table. */
export interface SnapshotRow extends Omit<SnapshotSummary, 'tags'> {
  readonly logicalBytes: number;
  readonly nonZeroPages: number;
}

/** The row of a snapshot, made of its file alone. */
export function snapshotRow({
  description,
  sizeBytes,
}: Pick<SnapshotFile, 'description' | 'sizeBytes'>): SnapshotRow {
  const { id, kind, vm, parent, createdAt, memoryBytes, diskBytes, packBytes, regions } = description;
  return {
    ...{ id, kind, vm, parent, createdAt, memoryBytes, diskBytes },
    storedBytes: packBytes + sizeBytes,
    labels: labelsOf(description),
    pauseMs: pauseOf(description),
    logicalBytes: regions.reduce((total, region) => total + region.sizeBytes, 0),
    nonZeroPages: regions.reduce((total, region) => total + region.nonZeroPages, 0),
  };
}

export interface PackRow {
  readonly number: number;
  readonly generation: number;
  readonly chunks: number;
  readonly sizeBytes: number;
}

/** The schema version since which the index has labels. */
const LABELS_VERSION = 4;
/** The schema version since which the index has pauses, and when a pack was verified. */
const PAUSES_VERSION = 5;

export class Index {
  readonly #db: Connection;
  /** Newer columns, or what stands for them in an older index. */
  readonly #columns: { readonly labels: string; readonly pauseMs: string; readonly verifiedAt: string };

  private constructor(db: Connection) {
    this.#db = db;
    const version = db.schemaVersion;
    const column = (name: string, since: number): string => (version >= since ? name : `NULL AS ${name}`);
    this.#columns = {
      labels: column('labels', LABELS_VERSION),
      pauseMs: column('pauseMs', PAUSES_VERSION),
      verifiedAt: column('verifiedAt', PAUSES_VERSION),
    };
  }

  /** Creates the database of a new store, or completes one that a crash left empty. */
  static create(dir: string, file = DATABASE): Index {
    return new Index(createIndex(dir, file));
  }

  /** Errors: NOT_A_STORE, NEWER_FORMAT, READ_ONLY, NO_PERMISSION, NO_SPACE, STORE_BUSY, DAMAGED. */
  static open(dir: string, write: boolean): Index {
    return new Index(openIndex(dir, write));
  }

  /** For repair, which closes a new index with an empty log. */
  get database(): BetterSqlite3.Database {
    return this.#db.database;
  }

  close(): void {
    this.#db.close();
  }

  checkpoint(): void {
    this.#db.checkpoint();
  }

  vacuum(): void {
    this.#db.vacuum();
  }

  integrityProblems(): string[] {
    return this.#db.integrityProblems();
  }

  /** The problem of every invalid row. */
  invalidRows(): DamageError[] {
    const found: DamageError[] = [];
    const note: OnInvalidRow = (problem) => void found.push(problem);
    this.#db.rows('snapshots', 'SELECT * FROM snapshots', [], note);
    this.tags(note);
    this.packs(note);
    this.#db.rows('packs', `SELECT number, readRun, ${this.#columns.verifiedAt} FROM packs`, [], note);
    this.segments(note);
    this.nextNumber(note);
    return found;
  }

  /** Called before work that must not stop half-way at an invalid row. Errors: DAMAGED. */
  requireValidRows(): void {
    for (const problem of this.invalidRows()) throw problem;
  }

  // Snapshots and tags

  summaries(): SnapshotSummary[] {
    return this.#summaries('ORDER BY createdAt, id, tag');
  }

  summary(id: string): SnapshotSummary | undefined {
    return this.#summaries('WHERE id = ? ORDER BY tag', [id])[0];
  }

  /** One query for snapshots and tags: between two, a tag could move. */
  #summaries(which: string, values: unknown[] = []): SnapshotSummary[] {
    const rows = this.#db.rows<SummaryRow>(
      'snapshots',
      `SELECT id, label AS tag, kind, vm, parent, createdAt, memoryBytes, diskBytes, storedBytes, ${this.#columns.labels},
         ${this.#columns.pauseMs}
       FROM snapshots LEFT JOIN tags ON tags.snapshot = snapshots.id ${which}`,
      values,
    );
    return withTags(rows).map((row) => ({
      ...row,
      labels: parsedLabels(row) ?? this.#labelsInFile(row.id) ?? {},
    }));
  }

  /** For a row that was written before the index had labels. Null: the file is damaged. Errors: those of the system. */
  #labelsInFile(id: string): Labels | null {
    try {
      return labelsOf(readSnapshotFile(this.#db.dir, id).description);
    } catch (error) {
      // Lists do not fail because of a damaged snapshot. check names it.
      if (error instanceof LivesnapError) return null;
      throw storeError(this.#db.dir, error);
    }
  }

  /** Fills in the labels of rows that were written before the index had them. */
  fillLabels(): void {
    const known = this.#db
      .rows<{ id: string }>('snapshots', 'SELECT id FROM snapshots WHERE labels IS NULL')
      .flatMap(({ id }) => {
        const labels = this.#labelsInFile(id);
        return labels === null ? [] : [{ id, labels }];
      });
    if (known.length === 0) return;
    this.#db.transaction(() => {
      for (const { id, labels } of known)
        this.#db.run('UPDATE snapshots SET labels = ? WHERE id = ?', JSON.stringify(labels), id);
    });
  }

  has(id: string): boolean {
    return this.#db.get('SELECT 1 FROM snapshots WHERE id = ?', id) !== undefined;
  }

  /** Oldest first. */
  ids(onInvalid?: OnInvalidRow): string[] {
    return this.#db
      .rows<{ id: string }>('snapshots', 'SELECT id FROM snapshots ORDER BY createdAt, id', [], onInvalid)
      .map(({ id }) => id);
  }

  /** The labels are null in a row that was written before the index had them. */
  row(
    id: string,
    onInvalid?: OnInvalidRow,
  ): (Omit<SnapshotRow, 'labels'> & { labels: Labels | null }) | undefined {
    const row = this.#db.row<Omit<SnapshotRow, 'labels'> & { labels: string | null }>(
      'snapshots',
      `SELECT id, kind, vm, parent, createdAt, memoryBytes, diskBytes, storedBytes, ${this.#columns.labels},
         ${this.#columns.pauseMs}, logicalBytes, nonZeroPages
       FROM snapshots WHERE id = ?`,
      [id],
      onInvalid,
    );
    return row && { ...row, labels: parsedLabels(row) };
  }

  /** The snapshot that has a tag. */
  taggedAs(label: string): string | undefined {
    return this.#db.row<{ snapshot: string }>('tags', `${TAG} WHERE label = ?`, [label])?.snapshot;
  }

  /** The tags of a snapshot, sorted. */
  tagsOf(id: string): string[] {
    return this.#db
      .rows<{ label: string }>('tags', `${TAG} WHERE snapshot = ? ORDER BY label`, [id])
      .map(({ label }) => label);
  }

  /** Up to three IDs that begin with a prefix of hexadecimal digits. */
  idsBeginningWith(prefix: string): string[] {
    return this.#db
      .rows<{ id: string }>(
        'snapshots',
        'SELECT id FROM snapshots WHERE id >= ? AND id < ? ORDER BY id LIMIT 3',
        [prefix, `${prefix}g`],
      )
      .map(({ id }) => id);
  }

  tags(onInvalid?: OnInvalidRow): { label: string; snapshot: string; digest: string }[] {
    return this.#db.rows('tags', `${TAG} ORDER BY label`, [], onInvalid);
  }

  /** Tags whose row is valid but does not match its digest. */
  damagedTags(): { label: string; snapshot: string }[] {
    return this.tags(() => {}).filter(({ label, snapshot, digest }) => digest !== tagDigest(label, snapshot));
  }

  /** Null: there is no such snapshot. */
  addTags(id: string, labels: readonly string[]): TaggedSnapshot | null {
    return this.#db.transaction(() => {
      if (!this.has(id)) return null;
      const movedTags = this.#moveTags(id, labels);
      return { id, tags: this.tagsOf(id), movedTags };
    });
  }

  /** Makes labels name a snapshot. Returns those that named another one before. */
  #moveTags(id: string, labels: readonly string[]): MovedTag[] {
    const moved: MovedTag[] = [];
    for (const label of labels) {
      // If the row is invalid, no snapshot loses the tag.
      const holder = this.#db.row<{ snapshot: string }>(
        'tags',
        `${TAG} WHERE label = ?`,
        [label],
        () => {},
      )?.snapshot;
      this.#db.run('DELETE FROM tags WHERE label = ?', label);
      this.#insertTag(label, id);
      if (holder !== undefined && holder !== id) moved.push({ tag: label, from: holder });
    }
    return moved;
  }

  #insertTag(label: string, id: string): void {
    this.#db.run(
      'INSERT INTO tags (label, snapshot, digest) VALUES (?, ?, ?)',
      label,
      id,
      tagDigest(label, id),
    );
  }

  /**
   * Removes tags, and returns them with their snapshots; null for one that does not exist, and then none is removed.
   * `of`: a tag of any other snapshot counts as one that does not exist.
   */
  removeTags(labels: readonly string[], of?: string): (Tag | null)[] {
    return this.#db.freeingSpace(() =>
      this.#db.transaction(() => {
        const found = labels.map((tag) => {
          const id = this.taggedAs(tag);
          return id === undefined || (of !== undefined && id !== of) ? null : { tag, id };
        });
        if (!found.includes(null))
          for (const label of labels) this.#db.run('DELETE FROM tags WHERE label = ?', label);
        return found;
      }),
    );
  }

  /** Removes the snapshots that `choose` returns within the transaction, and their tags. */
  removeSnapshots(choose: () => readonly string[]): RemovedSnapshot[] {
    return this.#db.freeingSpace(() =>
      this.#db.transaction(() => {
        const removed = choose().map((id) => ({ id, tags: this.tagsOf(id) }));
        for (const { id } of removed) this.#db.run('DELETE FROM snapshots WHERE id = ?', id);
        return removed;
      }),
    );
  }

  totals(): { snapshots: number; logicalBytes: number; nonZeroPages: number } {
    return this.#db.get(
      'SELECT count(*) AS snapshots, total(logicalBytes) AS logicalBytes, total(nonZeroPages) AS nonZeroPages FROM snapshots',
    )!;
  }

  // Saves

  /**
   * Commits a no-op to overwrite a WAL commit left by a killed process: one that is synced in the log but not yet in
   * the WAL index, so that other connections do not see it until the log is recovered. Errors: NO_SPACE.
   */
  invalidateUnseenCommits(): void {
    // SQLite writes nothing unless a page changes, so the value changes and changes back.
    const set = "UPDATE counters SET value = ? WHERE name = 'nextNumber'";
    this.#db.freeingSpace(() =>
      this.#db.transaction(() => {
        const next = this.nextNumber();
        this.#db.run(set, next - 1);
        this.#db.run(set, next);
      }),
    );
  }

  /** Numbers that were never given to a pack or segment. */
  reserveNumbers(count: number): number[] {
    const first = this.#db.transaction(() => {
      const next = this.nextNumber();
      this.#db.run("UPDATE counters SET value = ? WHERE name = 'nextNumber'", next + count);
      return next;
    });
    return Array.from({ length: count }, (_, i) => first + i);
  }

  /**
   * The commit point of a save. Returns the tags that the snapshot has, and which of them moved.
   *
   * `held` are the older packs that the save may refer to. A gc that was interrupted between its commit and its unlink
   * leaves the file of such a pack without a row, or with the row of a later generation, which has fewer chunks: the
   * held generation is listed again. A row of an earlier generation stays: another save listed it again, and it has
   * all chunks of the held one.
   */
  commitSave(
    snapshot: SnapshotRow,
    { labels, onlyIfFree }: { labels: readonly string[]; onlyIfFree: boolean },
    packs: readonly PackRow[],
    held: readonly PackRow[],
    segment: SegmentRow | null,
  ): Pick<TaggedSnapshot, 'tags' | 'movedTags'> {
    return this.#db.transaction(() => {
      for (const pack of held) {
        const listed = this.generationOf(pack.number);
        if (listed !== undefined && listed <= pack.generation) continue;
        this.#db.run('DELETE FROM packs WHERE number = ?', pack.number);
        this.#insertPack(pack);
      }
      for (const pack of packs) this.#insertPack(pack);
      if (segment) this.#insertSegment(segment);
      this.#insertSnapshot(snapshot);
      const free = onlyIfFree ? labels.filter((label) => this.taggedAs(label) === undefined) : labels;
      return { movedTags: this.#moveTags(snapshot.id, free), tags: this.tagsOf(snapshot.id) };
    });
  }

  /** Lists packs of a copy in progress. A resumed copy finds their chunks; if it is never resumed, gc deletes them. */
  commitPacks(packs: readonly PackRow[], segment: SegmentRow | null): void {
    this.#db.transaction(() => {
      for (const pack of packs) this.#insertPack(pack);
      if (segment) this.#insertSegment(segment);
    });
  }

  #insertPack(pack: PackRow): void {
    this.#db.run(
      'INSERT INTO packs (number, generation, chunks, sizeBytes) VALUES (?, ?, ?, ?)',
      pack.number,
      pack.generation,
      pack.chunks,
      pack.sizeBytes,
    );
  }

  #insertSegment({ number, entries }: SegmentRow): void {
    this.#db.run('INSERT INTO segments (number, entries) VALUES (?, ?)', number, entries);
  }

  #insertSnapshot(row: SnapshotRow): void {
    this.#db.run(
      `INSERT INTO snapshots
         (id, kind, vm, parent, createdAt, memoryBytes, diskBytes, storedBytes, logicalBytes, nonZeroPages, labels,
          pauseMs)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      row.id,
      row.kind,
      row.vm,
      row.parent,
      row.createdAt,
      row.memoryBytes,
      row.diskBytes,
      row.storedBytes,
      row.logicalBytes,
      row.nonZeroPages,
      JSON.stringify(row.labels),
      row.pauseMs,
    );
  }

  // Packs and segments

  packs(onInvalid?: OnInvalidRow): PackRow[] {
    return this.#db.rows(
      'packs',
      'SELECT number, generation, chunks, sizeBytes FROM packs ORDER BY number',
      [],
      onInvalid,
    );
  }

  /** The next number of a pack or segment; 0 if it is invalid and `onInvalid` returned. */
  nextNumber(onInvalid: OnInvalidRow = throwProblem): number {
    const sql = "SELECT value FROM counters WHERE name = 'nextNumber'";
    if (!this.#db.get(sql)) onInvalid(damagedTable('counters', 'has no next number'));
    return this.#db.row<{ value: number }>('counters', sql, [], onInvalid)?.value ?? 0;
  }

  /** Packs in the order in which check reads them: least recently read first. */
  packsToRead(onInvalid?: OnInvalidRow): PackRow[] {
    return this.#db.rows(
      'packs',
      'SELECT number, generation, chunks, sizeBytes FROM packs ORDER BY readRun, number',
      [],
      onInvalid,
    );
  }

  /** Records that a run of check has read these packs, and when. `damaged`: the numbers of those with damage. */
  noteRead(packs: readonly PackRow[], damaged: ReadonlySet<number>, at: string): void {
    this.#db.transaction(() => {
      const { last } = this.#db.get<{ last: number }>('SELECT coalesce(max(readRun), 0) AS last FROM packs')!;
      const run = last < MAX_NUMBER ? last + 1 : 1; // start again when the count is full
      if (run === 1) this.#db.run('UPDATE packs SET readRun = 0');
      for (const pack of packs)
        this.#db.run(
          'UPDATE packs SET readRun = ?, verifiedAt = ? WHERE number = ? AND generation = ?',
          run,
          damaged.has(pack.number) ? null : at,
          pack.number,
          pack.generation,
        );
    });
  }

  /** When each pack was verified, by number. A pack that no check has read, or that it found damaged, is missing. */
  verifiedPacks(): Map<number, string> {
    const rows = this.#db.rows<{ number: number; verifiedAt: string | null }>(
      'packs',
      `SELECT number, ${this.#columns.verifiedAt} FROM packs`,
    );
    return new Map(
      rows.flatMap(({ number, verifiedAt }) => (verifiedAt === null ? [] : [[number, verifiedAt]])),
    );
  }

  /** The listed generation of a pack; undefined when the pack is not listed. */
  generationOf(pack: number): number | undefined {
    return this.#db.row<{ generation: number }>('packs', 'SELECT generation FROM packs WHERE number = ?', [
      pack,
    ])?.generation;
  }

  /** Oldest first. */
  segments(onInvalid?: OnInvalidRow): SegmentRow[] {
    return this.#db.rows('segments', 'SELECT number, entries FROM segments ORDER BY number', [], onInvalid);
  }

  /** The number of entries of all segments (`listed`), and of chunks of all packs. */
  coverage(): { listed: number; chunks: number } {
    return this.#db.get<{ listed: number; chunks: number }>(
      'SELECT (SELECT total(entries) FROM segments) AS listed, (SELECT total(chunks) FROM packs) AS chunks',
    )!;
  }

  hasSegment(number: number): boolean {
    return this.#db.get('SELECT 1 FROM segments WHERE number = ?', number) !== undefined;
  }

  /** Replaces segments by others with the same entries; false when another process has replaced one of them. */
  replaceSegments(numbers: readonly number[], merged: readonly SegmentRow[]): boolean {
    return this.#db.transaction(() => {
      if (!numbers.every((number) => this.hasSegment(number))) return false;
      for (const number of numbers) this.#db.run('DELETE FROM segments WHERE number = ?', number);
      for (const segment of merged) this.#insertSegment(segment);
      return true;
    });
  }

  /** Removes the packs that are still listed in this generation, and returns them. */
  removePacks<P extends Pick<PackRow, 'number' | 'generation'>>(packs: readonly P[]): P[] {
    if (packs.length === 0) return [];
    return this.#db.freeingSpace(() =>
      this.#db.transaction(() => packs.filter((pack) => this.#removePack(pack.number, pack.generation))),
    );
  }

  /** Lists a rewritten generation instead of `from`; false when `from` is no longer listed. */
  replacePack(pack: PackRow, from: number): boolean {
    return this.#db.freeingSpace(() =>
      this.#db.transaction(() => {
        const isListed = this.#removePack(pack.number, from);
        if (isListed) this.#insertPack(pack);
        return isListed;
      }),
    );
  }

  #removePack(number: number, generation: number): boolean {
    return this.#db.run('DELETE FROM packs WHERE number = ? AND generation = ?', number, generation) > 0;
  }

  /** Fills an empty index (repair). */
  rebuild(content: {
    snapshots: readonly SnapshotRow[];
    tags: readonly Tag[];
    packs: readonly PackRow[];
    nextNumber: number;
  }): void {
    this.#db.transaction(() => {
      this.#db.run("UPDATE counters SET value = ? WHERE name = 'nextNumber'", content.nextNumber);
      for (const pack of content.packs) this.#insertPack(pack);
      for (const snapshot of content.snapshots) this.#insertSnapshot(snapshot);
      for (const { tag, id } of content.tags) this.#insertTag(tag, id);
    });
  }
}

const tagDigest = (label: string, snapshot: string): string =>
  hash('sha256', `${label} ${snapshot}`).slice(0, 16);

const TAG = `
  SELECT label, snapshot, digest, EXISTS (SELECT 1 FROM snapshots WHERE id = snapshot) AS snapshotExists FROM tags`;

/** A row for each tag of a snapshot, or one without a tag. `labels` is JSON. */
type SummaryRow = Omit<SnapshotSummary, 'tags' | 'labels'> & {
  readonly tag: string | null;
  readonly labels: string | null;
};

const parsedLabels = ({ labels }: { readonly labels: string | null }): Labels | null =>
  labels === null ? null : JSON.parse(labels);

/** Rows of a snapshot follow each other. */
function withTags(rows: readonly SummaryRow[]): (Omit<SummaryRow, 'tag'> & { tags: string[] })[] {
  const summaries: (Omit<SummaryRow, 'tag'> & { tags: string[] })[] = [];
  for (const { id, tag, ...described } of rows) {
    let last = summaries.at(-1);
    if (last?.id !== id) {
      last = { id, tags: [], ...described };
      summaries.push(last);
    }
    if (tag !== null) last.tags.push(tag);
  }
  return summaries;
}
