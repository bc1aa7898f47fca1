/**
 * Makes plans. They follow from the choices alone, and suppose that every step succeeds.
 */
import type { Chooser } from './chooser.js';
import { type Content, LARGE_PAGES, makeContent } from './contents.js';
import type { World } from './model.js';
import { type CopyStep, exportOf, isCopyStep, isExport, type Step } from './plan.js';

const TAGS = ['alpha', 'beta', 'gamma', 'delta'];

const someTags = (choose: Chooser): string[] => choose.some(TAGS, 1 + choose.below(3));

/** The second store, to and from which snapshots are copied. */
const OTHER = 'b';

/** The snapshots to choose from while a plan is made: those that exist if every step so far succeeds. */
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

  /** `subject` is STORE/LABEL. */
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
      return { do: 'tag', store, label: choose.pick(present).label, tags: someTags(choose) };
    case 'untag':
      if (present.length === 0) break;
      return { do: 'untag', store, tags: someTags(choose) };
    case 'load':
      if (present.length === 0) break;
      return { do: 'load', store, label: choose.pick(present).label };
    case 'repair':
      if (present.length === 0) break;
      return { do: verb, store };
    case 'gc':
    case 'recompress':
    case 'check':
    case 'reopen':
      return { do: verb, store };
  }
  const kind = verb === 'put' ? 'file' : 'machine';
  const machines = present.filter((content) => content.kind === 'machine');
  const diskBases = present.filter(({ kind, disk }) => kind === 'file' || disk !== undefined);
  const content = makeContent(choose, outlook.world.newLabel(), kind, machines, diskBases);
  outlook.add(store, content);
  return {
    do: kind === 'file' ? 'put' : 'save',
    store,
    content,
    tags: choose.chance(0.4) ? someTags(choose) : [],
  };
}

/** Null: there is nothing to copy. */
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
  'untag',
  'gc',
  'gc',
  'recompress',
  'repair',
  'check',
  'reopen',
  ...COPYING,
];

/** Steps for one process, one after the other. */
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

/** Saves and copies a machine whose copy is committed in parts. */
function makeLargeCopy(choose: Chooser, outlook: Outlook): Step[] {
  const { store, world } = outlook;
  const content: Content = {
    ...{ label: world.newLabel(), kind: 'machine', seed: choose.next(), size: LARGE_PAGES },
    ...{ parent: null, dirty: [] },
  };
  for (const name of [store, OTHER]) outlook.add(name, content);
  return [
    { do: 'save', store, content, tags: [] },
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
  'recompress',
  'load',
  'check',
  'reopen',
  ...COPYING,
];

/** Plans for processes that work on the same stores at once. No two save, remove or tag the same snapshot. */
export function makePlansAtOnce(choose: Chooser, world: World, store: string, processes: number): Step[][] {
  const labels = [...new Set([...world.stores.values()].flatMap(({ must }) => must))];
  return Array.from({ length: processes }, (_, process) => {
    const part = world.part(`p${process}-`, (label) => labels.indexOf(label) % processes === process);
    return makeSteps(choose, part, store, 1 + choose.below(4), ONE_OF_SEVERAL).map((step) =>
      'tags' in step ? { ...step, tags: step.tags.map((tag) => `${tag}${process}`) } : step,
    );
  });
}

const BESIDE: readonly Verb[] = ['save', 'save', 'put', 'remove', 'load', 'check', ...COPYING];

/** The snapshots that a step uses, as STORE/LABEL. */
function subjectsOf(step: Step): string[] {
  if ('content' in step) return [`${step.store}/${step.content.label}`];
  if (step.do === 'remove') return step.labels.map((label) => `${step.store}/${label}`);
  if (isCopyStep(step)) return [`${step.store}/${step.label}`, `${step.from}/${step.label}`];
  return 'label' in step ? [`${step.store}/${step.label}`] : [];
}

/** The snapshots that a step makes, as STORE/LABEL. */
function madeBy(step: Step): string[] {
  if ('content' in step) return subjectsOf(step);
  return isCopyStep(step) ? [`${step.store}/${step.label}`] : [];
}

/** Steps for one process, of which a gc and some others run at once. */
export function makeStepsAtOnce(choose: Chooser, world: World, store: string): Step[] {
  const outlook = new Outlook(store, world);
  const before = [makeStep(choose, outlook, ['save', 'remove'])];
  const beside = Array.from({ length: 1 + choose.below(3) }, () => makeStep(choose, outlook, BESIDE));
  // The order of these steps is open: so they set no tags, and none uses a snapshot that another one makes.
  const independent = beside.map((step) => ('content' in step ? { ...step, tags: [] } : step));
  const steps = independent.filter((step, i) => {
    const made = new Set(independent.flatMap((other, j) => (i === j ? [] : madeBy(other))));
    return !subjectsOf(step).some((subject) => made.has(subject));
  });
  // Later steps must not use a snapshot whose step was left out.
  const made = new Set(steps.flatMap(madeBy));
  for (const step of independent)
    if (!steps.includes(step))
      for (const subject of madeBy(step)) if (!made.has(subject)) outlook.forget(subject);
  const gc = {
    do: choose.pick(['gc', 'recompress'] as const),
    store: outlook.present(OTHER).length > 0 ? choose.pick([store, OTHER]) : store,
  } as const;
  return [...before, { do: 'together', steps: [gc, ...steps] }, makeStep(choose, outlook, WRITING)];
}
