/**
 * The model of a disk: which snapshots and tags each store must, may and must not have, by the marks of the children.
 */
import { Contents } from './contents.js';
import { isCopyStep, type Mark, type Step, storesOf } from './plan.js';

type Presence = 'must' | 'may' | 'gone';

/** What one store must, may and must not have. */
export class StoreModel {
  readonly snapshots = new Map<string, Presence>();
  /** The snapshots that each tag may name. Null: it may not exist. A tag that is not listed does not exist. */
  readonly holders = new Map<string, Set<string | null>>();
  /** Steps ran at once, so a session may have kept the file of a removed snapshot. */
  keepsRemoved = false;
  /** A fault was met, so work that follows a commit (a tag's file) may be missing until gc. */
  disturbed = false;
  /** Snapshots that existed when their removal began. */
  readonly #removing = new Set<string>();
  /** Snapshots that are not listed, but whose files may exist. A repair may list them again. */
  readonly #leftovers = new Set<string>();
  /**
   * Files of tags/ may differ from the index until the next gc: a step failed, or a fault did not fail its step (a
   * save succeeds without its tag's file).
   */
  #tagFilesUnsure = false;
  /** A repair has read such files, so any tag is possible. */
  tagsUnknown = false;

  copy(): StoreModel {
    const copy = new StoreModel();
    for (const [label, presence] of this.snapshots) copy.snapshots.set(label, presence);
    for (const [tag, holders] of this.holders) copy.holders.set(tag, new Set(holders));
    copy.keepsRemoved = this.keepsRemoved;
    copy.disturbed = this.disturbed;
    copy.tagsUnknown = this.tagsUnknown;
    return copy;
  }

  expectFaults(): void {
    this.#tagFilesUnsure = true;
  }

  get must(): string[] {
    return [...this.snapshots].filter(([, presence]) => presence === 'must').map(([label]) => label);
  }

  holdersOf(tag: string): Set<string | null> {
    let holders = this.holders.get(tag);
    if (!holders) {
      holders = new Set([null]);
      this.holders.set(tag, holders);
    }
    return holders;
  }

  /** The tags that a snapshot may have. */
  tagsOf(label: string): string[] {
    return [...this.holders].filter(([, holders]) => holders.has(label)).map(([tag]) => tag);
  }

  begin(step: Step): void {
    if (step.do === 'save' || step.do === 'put') {
      this.snapshots.set(step.content.label, 'may');
      for (const tag of step.tags) this.holdersOf(tag).add(step.content.label);
    } else if (step.do === 'remove') {
      for (const label of step.labels)
        if (this.snapshots.get(label) === 'must') {
          this.#removing.add(label);
          this.snapshots.set(label, 'may');
          for (const tag of this.tagsOf(label)) this.holdersOf(tag).add(null);
        }
    } else if (step.do === 'tag') for (const tag of step.tags) this.holdersOf(tag).add(step.label);
    else if (step.do === 'untag') for (const tag of step.tags) this.holdersOf(tag).add(null);
    else if (step.do === 'repair') {
      for (const label of this.#leftovers) this.snapshots.set(label, 'may');
      this.tagsUnknown ||= this.#tagFilesUnsure;
    }
  }

  /** `tags`: those that the snapshot may have at the source. */
  copyBegins(label: string, tags: readonly string[]): void {
    const presence = this.snapshots.get(label);
    if (presence === 'must') return; // it exists, and the copy leaves it unchanged
    this.snapshots.set(label, 'may');
    // A tag that names another snapshot here is not copied. If steps run at once, the order of their marks is open.
    for (const tag of tags) {
      const holders = this.holdersOf(tag);
      if (holders.has(null) || this.keepsRemoved) holders.add(label);
    }
  }

  copyDone(label: string): void {
    this.snapshots.set(label, 'must');
  }

  done(step: Step): void {
    if (step.do === 'save' || step.do === 'put') {
      this.snapshots.set(step.content.label, 'must');
      for (const tag of step.tags) this.holders.set(tag, new Set([step.content.label]));
    } else if (step.do === 'remove') {
      for (const label of step.labels) {
        this.snapshots.set(label, 'gone');
        for (const tag of this.tagsOf(label)) this.holdersOf(tag).add(null).delete(label);
      }
    } else if (step.do === 'tag') for (const tag of step.tags) this.holders.set(tag, new Set([step.label]));
    else if (step.do === 'untag') for (const tag of step.tags) this.holders.set(tag, new Set([null]));
  }

  /** Some errors show that the step did nothing. After any other, the outcome is open. */
  failed(step: Step, code: string): void {
    if (step.do === 'remove' && (code === 'NO_SUCH_SNAPSHOT' || code === 'STORE_BUSY')) {
      for (const label of step.labels) if (this.#removing.has(label)) this.snapshots.set(label, 'must');
    } else if (step.do === 'tag' && (code === 'NO_SUCH_SNAPSHOT' || code === 'STORE_BUSY')) return;
    this.disturbed = true;
    this.#tagFilesUnsure = true;
  }

  /** Takes over what a verification found: nothing is open any more. `cleaned`: after a gc. */
  settle(listed: ReadonlyMap<string, readonly string[]>, cleaned: boolean): void {
    if (cleaned) {
      this.#leftovers.clear();
      this.#tagFilesUnsure = false;
    }
    this.tagsUnknown = false;
    for (const [label, presence] of this.snapshots) {
      const isThere = listed.has(label);
      if (!isThere && presence === 'may' && !cleaned) this.#leftovers.add(label);
      this.snapshots.set(label, isThere ? 'must' : 'gone');
    }
    this.holders.clear();
    for (const [label, tags] of listed) for (const tag of tags) this.holders.set(tag, new Set([label]));
  }
}

/** The models of all stores of a disk, and the contents of their snapshots. */
export class World {
  readonly stores = new Map<string, StoreModel>();
  #labels = 0;

  constructor(readonly contents: Contents = new Contents()) {
    this.#labels = contents.all().length;
  }

  /** A new label. */
  newLabel(): string {
    return `s${++this.#labels}`;
  }

  /** A world that has some of the snapshots, and whose new labels begin with a prefix. */
  part(prefix: string, isIn: (label: string) => boolean): World {
    const part = new World(new Contents(this.contents.all()));
    for (const [name, { must }] of this.stores)
      for (const label of must) if (isIn(label)) part.store(name).snapshots.set(label, 'must');
    part.newLabel = () => `${prefix}${++part.#labels}`;
    return part;
  }

  copy(): World {
    const copy = new World(new Contents(this.contents.all()));
    copy.#labels = this.#labels;
    for (const [name, store] of this.stores) copy.stores.set(name, store.copy());
    return copy;
  }

  store(name: string): StoreModel {
    let store = this.stores.get(name);
    if (!store) {
      store = new StoreModel();
      this.stores.set(name, store);
    }
    return store;
  }

  take(mark: Mark): void {
    if (mark.step === null) return;
    if (mark.step.do === 'together') {
      for (const name of storesOf(mark.step)) this.store(name).keepsRemoved = true;
      return;
    }
    const store = this.store(mark.step.store);
    if (isCopyStep(mark.step) && mark.at !== 'failed') {
      const { from, label } = mark.step;
      if (mark.at === 'begin') store.copyBegins(label, this.store(from).tagsOf(label));
      else if (mark.at === 'done') store.copyDone(label);
    } else if (mark.at === 'begin') {
      if (mark.step.do === 'save' || mark.step.do === 'put') this.contents.add(mark.step.content);
      store.begin(mark.step);
    } else if (mark.at === 'done') store.done(mark.step);
    else if (mark.at === 'failed') store.failed(mark.step, mark.code);
  }
}
