/**
 * What a child is told to do to stores, and what is then in them: seeded plans, the contents they give, and the model
 * of which snapshots must, may and must not be there.
 *
 * A snapshot is known by its label, which is kept as the name of its machine or file: so one that was committed by a
 * process that died before it could say the id is known as well.
 */
import { PAGE_BYTES } from '../../src/page-stream.js';
import { noise, seeded, textPages } from '../store/scratch.js';

/** What a snapshot holds; all of it follows from the seed and the parent. */
export interface Content {
  readonly label: string;
  readonly kind: 'machine' | 'file';
  readonly seed: number;
  /** Bytes of a file; pages of a machine. */
  readonly size: number;
  /** Incremental: all but these pages are the parent's. */
  readonly parent: string | null;
  readonly dirty: readonly number[];
}

export type Step =
  | {
      readonly do: 'save' | 'put';
      readonly store: string;
      readonly content: Content;
      readonly tag: string | null;
    }
  | { readonly do: 'remove'; readonly store: string; readonly labels: readonly string[] }
  | { readonly do: 'tag'; readonly store: string; readonly label: string; readonly tag: string }
  | { readonly do: 'load'; readonly store: string; readonly label: string }
  | { readonly do: 'gc' | 'check' | 'repair' | 'reopen'; readonly store: string }
  | CopyStep
  /** Each step with a store of its own opened, all at once. */
  | { readonly do: 'together'; readonly steps: readonly Step[] };

/** Brings a snapshot from one store to another; each of the two may ask. What is exported is a store of its own. */
export interface CopyStep {
  readonly do: 'copy to' | 'copy from' | 'export' | 'import';
  /** Where it comes to be. */
  readonly store: string;
  readonly from: string;
  readonly label: string;
}

export const isCopyStep = (step: Step): step is CopyStep => 'from' in step;

/** The directory that a snapshot is exported to. */
const exportOf = (label: string): string => `x-${label}`;
export const isExport = (store: string): boolean => store.startsWith('x-');

export interface Plan {
  readonly fingerprintBits: number;
  /** Contents of what was there before, by label. */
  readonly known: readonly Content[];
  readonly steps: readonly Step[];
}

/** What a child says: written to its file of marks, one JSON object a line; `ns` is the host's monotonic clock. */
export type Mark = { readonly ns?: number } & MarkBody;

type MarkBody =
  | { readonly at: 'begin'; readonly step: Step }
  | { readonly at: 'done'; readonly step: Step }
  /** The step was refused with one of livesnap's errors. */
  | { readonly at: 'failed'; readonly step: Step; readonly code: string; readonly message: string }
  /** Anything else was thrown, or a load gave wrong bytes. */
  | { readonly at: 'bug'; readonly step: Step | null; readonly message: string };

/** A copy of this many pages commits what has arrived before it is complete. */
const LARGE_PAGES = 8500;
const POOL_PAGES = 48;
const pool = [noise(0x9001, POOL_PAGES / 2), textPages(0x9002, POOL_PAGES / 2)];

/** A page that no other machine has, and that is made and compressed at once. */
function markedPage(seed: number, number: number): Buffer {
  const bytes = Buffer.alloc(PAGE_BYTES);
  bytes.writeUInt32LE((seed | 1) >>> 0);
  bytes.writeUInt32LE(number, PAGE_BYTES / 2);
  return bytes;
}

/** One page: zero, one that other snapshots have too, text, or noise. */
function page(seed: number, number: number): Buffer {
  const next = seeded(Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b));
  switch (next() % 5) {
    case 0:
      return Buffer.alloc(PAGE_BYTES);
    case 1:
    case 2: {
      const which = next() % POOL_PAGES;
      const half = pool[which & 1]!;
      return half.subarray((which >> 1) * PAGE_BYTES, ((which >> 1) + 1) * PAGE_BYTES);
    }
    case 3:
      return textPages(next(), 1);
    default:
      return noise(next(), 1);
  }
}

/** The bytes of contents by label; each is made once. */
export class Contents {
  readonly #known = new Map<string, Content>();
  readonly #bytes = new Map<string, Buffer>();

  constructor(known: Iterable<Content> = []) {
    for (const content of known) this.add(content);
  }

  add(content: Content): void {
    this.#known.set(content.label, content);
  }

  get(label: string): Content {
    const content = this.#known.get(label);
    if (!content) throw new Error(`no content has the label ${label}`);
    return content;
  }

  all(): Content[] {
    return [...this.#known.values()];
  }

  bytes(label: string): Buffer {
    let bytes = this.#bytes.get(label);
    if (!bytes) {
      bytes = this.#make(this.get(label));
      this.#bytes.set(label, bytes);
    }
    return bytes;
  }

  #make({ kind, seed, size, parent, dirty }: Content): Buffer {
    const sizeBytes = kind === 'file' ? size : size * PAGE_BYTES;
    const bytes = Buffer.alloc(Math.ceil(sizeBytes / PAGE_BYTES) * PAGE_BYTES);
    const count = bytes.length / PAGE_BYTES;
    if (parent === null && count >= LARGE_PAGES)
      for (let i = 0; i < count; i++) bytes.set(markedPage(seed, i), i * PAGE_BYTES);
    else if (parent === null)
      for (let i = 0; i < count; i++) {
        // A large machine is mostly empty, so that its manifest has several blocks and the test is quick.
        if (count > 400 && i % 97 > 8) continue;
        bytes.set(page(seed, i), i * PAGE_BYTES);
      }
    else {
      bytes.set(this.bytes(parent).subarray(0, bytes.length));
      for (const i of dirty) bytes.set(page(seed, i), i * PAGE_BYTES);
    }
    return bytes.subarray(0, sizeBytes);
  }

  /** What a machine's state is. */
  static state(label: string): Buffer {
    return Buffer.from(`state of ${label} `.repeat(20));
  }
}

type Presence = 'must' | 'may' | 'gone';

/** What is known of one store. */
export class StoreModel {
  readonly snapshots = new Map<string, Presence>();
  /** The tags that each snapshot may have. */
  readonly tags = new Map<string, Set<string | null>>();
  /** Steps ran at once: a removed snapshot's file may be kept by a session that needs it. */
  keepsRemoved = false;
  /** A fault was met: what follows a commit (a tag's file) may be undone until gc. */
  disturbed = false;
  /** Snapshots that were there when their removal began. */
  readonly #removing = new Set<string>();
  /** Snapshots that are not there, but whose files may be, so that a repair may bring them back. */
  readonly #leftovers = new Set<string>();
  /**
   * A step failed, or a fault was met without one (a save is done without its tag's file), and files of tags/ may not be as
   * the index says until gc has been there.
   */
  #tagFilesUnsure = false;
  /** A repair has believed such files. */
  tagsUnknown = false;

  copy(): StoreModel {
    const copy = new StoreModel();
    for (const [label, presence] of this.snapshots) copy.snapshots.set(label, presence);
    for (const [label, tags] of this.tags) copy.tags.set(label, new Set(tags));
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

  tagsOf(label: string): Set<string | null> {
    let tags = this.tags.get(label);
    if (!tags) {
      tags = new Set([null]);
      this.tags.set(label, tags);
    }
    return tags;
  }

  #otherHolders(tag: string, label: string): Set<string | null>[] {
    return [...this.tags].filter(([of, tags]) => of !== label && tags.has(tag)).map(([, tags]) => tags);
  }

  #tagBegins(label: string, tag: string): void {
    this.tagsOf(label).add(tag);
    for (const tags of this.#otherHolders(tag, label)) tags.add(null);
  }

  #tagDone(label: string, tag: string): void {
    for (const tags of this.#otherHolders(tag, label)) {
      tags.delete(tag);
      tags.add(null);
    }
    this.tags.set(label, new Set([tag]));
  }

  begin(step: Step): void {
    if (step.do === 'save' || step.do === 'put') {
      this.snapshots.set(step.content.label, 'may');
      if (step.tag !== null) this.#tagBegins(step.content.label, step.tag);
    } else if (step.do === 'remove') {
      for (const label of step.labels)
        if (this.snapshots.get(label) === 'must') {
          this.#removing.add(label);
          this.snapshots.set(label, 'may');
        }
    } else if (step.do === 'tag') this.#tagBegins(step.label, step.tag);
    else if (step.do === 'repair') {
      for (const label of this.#leftovers) this.snapshots.set(label, 'may');
      this.tagsUnknown ||= this.#tagFilesUnsure;
    }
  }

  /** A copy from a store in which the snapshot may have these tags. */
  copyBegins(label: string, tags: ReadonlySet<string | null>): void {
    const presence = this.snapshots.get(label);
    if (presence === 'must') return; // it is there, and stays as it is
    this.snapshots.set(label, 'may');
    // A tag that another snapshot has here does not come along.
    const before = presence === 'may' ? this.tagsOf(label) : [];
    this.tags.set(label, new Set([...before, ...tags, null]));
  }

  copyDone(label: string): void {
    this.snapshots.set(label, 'must');
  }

  done(step: Step): void {
    if (step.do === 'save' || step.do === 'put') {
      this.snapshots.set(step.content.label, 'must');
      if (step.tag !== null) this.#tagDone(step.content.label, step.tag);
    } else if (step.do === 'remove') {
      for (const label of step.labels) {
        this.snapshots.set(label, 'gone');
        this.tags.delete(label);
      }
    } else if (step.do === 'tag') this.#tagDone(step.label, step.tag);
  }

  /** A step that was refused; only what is refused before anything was done leaves the model sure of the outcome. */
  failed(step: Step, code: string): void {
    if (step.do === 'remove' && (code === 'NO_SUCH_SNAPSHOT' || code === 'STORE_BUSY')) {
      for (const label of step.labels) if (this.#removing.has(label)) this.snapshots.set(label, 'must');
    } else if (step.do === 'tag' && (code === 'NO_SUCH_SNAPSHOT' || code === 'STORE_BUSY')) return;
    this.disturbed = true;
    this.#tagFilesUnsure = true;
  }

  /** What a look at the store has shown: no snapshot is in doubt any more. Before a gc, files of others may be there. */
  settle(listed: ReadonlyMap<string, string | null>, cleaned: boolean): void {
    if (cleaned) {
      this.#leftovers.clear();
      this.#tagFilesUnsure = false;
    }
    this.tagsUnknown = false;
    for (const [label, presence] of this.snapshots) {
      const isThere = listed.has(label);
      if (!isThere && presence === 'may' && !cleaned) this.#leftovers.add(label);
      this.snapshots.set(label, isThere ? 'must' : 'gone');
      if (isThere) this.tags.set(label, new Set([listed.get(label) ?? null]));
      else this.tags.delete(label);
    }
  }
}

/** The stores that a step works with. */
export function storesOf(step: Step): string[] {
  if (step.do === 'together') return step.steps.flatMap(storesOf);
  return isCopyStep(step) ? [step.store, step.from] : [step.store];
}

/** What is known of all stores of a disk. */
export class World {
  readonly stores = new Map<string, StoreModel>();
  #labels = 0;

  constructor(readonly contents: Contents = new Contents()) {
    this.#labels = contents.all().length;
  }

  /** A label that nothing of this world has yet. */
  newLabel(): string {
    return `s${++this.#labels}`;
  }

  /** A world of some of the snapshots, whose new labels begin with a prefix. */
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

export const parseMarks = (text: string): Mark[] =>
  text
    .split('\n')
    .filter((line) => line.endsWith('}'))
    .map((line) => JSON.parse(line) as Mark);

// Making plans

/** Seeded choices. */
export class Chooser {
  readonly next: () => number;

  constructor(readonly seed: number) {
    this.next = seeded(seed);
  }

  /** 0 … limit − 1. */
  below(limit: number): number {
    return this.next() % limit;
  }

  chance(part: number): boolean {
    return this.next() / 2 ** 32 < part;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  some<T>(from: readonly T[], count: number): T[] {
    const left = [...from];
    const picked: T[] = [];
    while (picked.length < count && left.length > 0) picked.push(left.splice(this.below(left.length), 1)[0]!);
    return picked;
  }
}

const TAGS = ['alpha', 'beta', 'gamma'];

/** A snapshot to be saved: full, or some pages of a parent of the same kind. */
export function makeContent(
  choose: Chooser,
  label: string,
  kind: Content['kind'],
  parents: Content[],
): Content {
  const seed = choose.next();
  const parent = kind === 'machine' && parents.length > 0 && choose.chance(0.6) ? choose.pick(parents) : null;
  if (parent) {
    const size = choose.chance(0.15) ? Math.max(1, parent.size - choose.below(40)) : parent.size;
    const count = Math.min(size, 1 + choose.below(40));
    const dirty = choose.some(
      Array.from({ length: size }, (_, i) => i),
      count,
    );
    return { label, kind, seed, size, parent: parent.label, dirty: dirty.sort((a, b) => a - b) };
  }
  if (kind === 'file')
    return { label, kind, seed, size: choose.below(60 * PAGE_BYTES), parent: null, dirty: [] };
  const size = choose.chance(0.2) ? 500 + choose.below(700) : 20 + choose.below(160);
  return { label, kind, seed, size, parent: null, dirty: [] };
}

/** The store that snapshots are copied to, and from. */
const OTHER = 'b';

/** What there is to choose from while a plan is made: the state if every step succeeds. */
class Outlook {
  readonly #present = new Map<string, Content[]>();

  constructor(
    readonly store: string,
    readonly world: World,
  ) {
    for (const [name, { must }] of world.stores)
      this.#present.set(
        name,
        must.map((label) => world.contents.get(label)),
      );
  }

  present(store: string): Content[] {
    let present = this.#present.get(store);
    if (!present) {
      present = [];
      this.#present.set(store, present);
    }
    return present;
  }

  get exports(): string[] {
    return [...this.#present].flatMap(([name, { length }]) => (isExport(name) && length > 0 ? [name] : []));
  }

  add(store: string, content: Content): void {
    const present = this.present(store);
    if (!present.includes(content)) present.push(content);
  }

  /** `subject`: as {@link madeBy} says it. */
  forget(subject: string): void {
    for (const [name, present] of this.#present)
      this.#present.set(
        name,
        present.filter(({ label }) => `${name}/${label}` !== subject),
      );
  }
}

type Verb = Exclude<Step['do'], 'together'>;

function makeStep(choose: Chooser, outlook: Outlook, verbs: readonly Verb[]): Step {
  const verb = choose.pick(verbs);
  if (verb === 'copy to' || verb === 'copy from' || verb === 'export' || verb === 'import') {
    const copy = makeCopy(choose, outlook, verb);
    if (copy) return copy;
  }
  const store = outlook.present(OTHER).length > 0 && choose.chance(0.25) ? OTHER : outlook.store;
  const present = outlook.present(store);
  switch (verb) {
    case 'remove':
      if (present.length < 2) break;
      {
        const gone = choose.some(present, choose.chance(0.7) ? 1 : 2);
        for (const content of gone) present.splice(present.indexOf(content), 1);
        return { do: 'remove', store, labels: gone.map(({ label }) => label) };
      }
    case 'tag':
      if (present.length === 0) break;
      return { do: 'tag', store, label: choose.pick(present).label, tag: choose.pick(TAGS) };
    case 'load':
      if (present.length === 0) break;
      return { do: 'load', store, label: choose.pick(present).label };
    case 'repair':
      if (present.length === 0) break;
      return { do: verb, store };
    case 'gc':
    case 'check':
    case 'reopen':
      return { do: verb, store };
  }
  const kind = verb === 'put' ? 'file' : 'machine';
  const machines = present.filter((content) => content.kind === 'machine');
  const content = makeContent(choose, outlook.world.newLabel(), kind, machines);
  outlook.add(store, content);
  return {
    do: kind === 'file' ? 'put' : 'save',
    store,
    content,
    tag: choose.chance(0.4) ? choose.pick(TAGS) : null,
  };
}

/** Null where there is nothing to copy. */
function makeCopy(choose: Chooser, outlook: Outlook, verb: CopyStep['do']): CopyStep | null {
  let from = outlook.present(OTHER).length > 0 && choose.chance(0.3) ? OTHER : outlook.store;
  let store = from === OTHER ? outlook.store : OTHER;
  if (verb === 'import') {
    if (outlook.exports.length === 0) return null;
    from = choose.pick(outlook.exports);
    store = choose.pick([outlook.store, OTHER]);
  }
  const candidates = outlook
    .present(from)
    .filter(({ label }) => verb !== 'export' || !outlook.exports.includes(exportOf(label)));
  if (candidates.length === 0) return null;
  const content = choose.pick(candidates);
  if (verb === 'export') store = exportOf(content.label);
  outlook.add(store, content);
  return { do: verb, store, from, label: content.label };
}

const COPYING: readonly Verb[] = ['copy to', 'copy from', 'export', 'import'];
const WRITING: readonly Verb[] = [
  'save',
  'save',
  'save',
  'put',
  'remove',
  'remove',
  'tag',
  'gc',
  'gc',
  'repair',
  'check',
  'reopen',
  ...COPYING,
];

/** A plan of a few steps. */
export function makeSteps(
  choose: Chooser,
  world: World,
  store: string,
  count: number,
  verbs = WRITING,
): Step[] {
  const outlook = new Outlook(store, world);
  const large = verbs === WRITING && choose.chance(0.04) ? makeLargeCopy(choose, outlook) : [];
  return [...large, ...Array.from({ length: count }, () => makeStep(choose, outlook, verbs))];
}

/** A machine that is saved and copied; the copy is long enough to be committed in parts. */
function makeLargeCopy(choose: Chooser, outlook: Outlook): Step[] {
  const { store, world } = outlook;
  const content: Content = {
    ...{ label: world.newLabel(), kind: 'machine', seed: choose.next(), size: LARGE_PAGES },
    ...{ parent: null, dirty: [] },
  };
  for (const name of [store, OTHER]) outlook.add(name, content);
  return [
    { do: 'save', store, content, tag: null },
    { do: 'copy to', store: OTHER, from: store, label: content.label },
  ];
}

const ONE_OF_SEVERAL: readonly Verb[] = [
  'save',
  'save',
  'put',
  'remove',
  'remove',
  'gc',
  'load',
  'check',
  'reopen',
  ...COPYING,
];

/** Plans for processes that work on the same stores at once; no two of them save, remove or tag the same snapshot. */
export function makePlansAtOnce(choose: Chooser, world: World, store: string, processes: number): Step[][] {
  const labels = [...new Set([...world.stores.values()].flatMap(({ must }) => must))];
  return Array.from({ length: processes }, (_, process) => {
    const part = world.part(`p${process}-`, (label) => labels.indexOf(label) % processes === process);
    return makeSteps(choose, part, store, 1 + choose.below(4), ONE_OF_SEVERAL).map((step) =>
      'tag' in step && step.tag !== null ? { ...step, tag: `${step.tag}${process}` } : step,
    );
  });
}

const BESIDE: readonly Verb[] = ['save', 'save', 'put', 'remove', 'load', 'check', ...COPYING];

/** The snapshots that a step is about, by store and label. */
function subjectsOf(step: Step): string[] {
  if ('content' in step) return [`${step.store}/${step.content.label}`];
  if (step.do === 'remove') return step.labels.map((label) => `${step.store}/${label}`);
  if (isCopyStep(step)) return [`${step.store}/${step.label}`, `${step.from}/${step.label}`];
  return 'label' in step ? [`${step.store}/${step.label}`] : [];
}

/** What a step brings into being, by store and label. */
function madeBy(step: Step): string[] {
  if ('content' in step) return subjectsOf(step);
  return isCopyStep(step) ? [`${step.store}/${step.label}`] : [];
}

/** As {@link makeSteps}, a gc and some others of the steps at once. */
export function makeStepsAtOnce(choose: Chooser, world: World, store: string): Step[] {
  const outlook = new Outlook(store, world);
  const before = [makeStep(choose, outlook, ['save', 'remove'])];
  const beside = Array.from({ length: 1 + choose.below(3) }, () => makeStep(choose, outlook, BESIDE));
  // Whose tag is last is not known, and no step may build on one that is only under way.
  const independent = beside.map((step) =>
    'tag' in step && step.do !== 'tag' ? { ...step, tag: null } : step,
  );
  const steps = independent.filter((step, i) => {
    const made = new Set(independent.flatMap((other, j) => (i === j ? [] : madeBy(other))));
    return !subjectsOf(step).some((subject) => made.has(subject));
  });
  // Nor may what comes afterwards build on one that was left out.
  const made = new Set(steps.flatMap(madeBy));
  for (const step of independent)
    if (!steps.includes(step))
      for (const subject of madeBy(step)) if (!made.has(subject)) outlook.forget(subject);
  const gc = {
    do: 'gc',
    store: outlook.present(OTHER).length > 0 ? choose.pick([store, OTHER]) : store,
  } as const;
  return [...before, { do: 'together', steps: [gc, ...steps] }, makeStep(choose, outlook, WRITING)];
}
