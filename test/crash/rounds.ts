/**
 * One round of the crash tests: a plan, carried out by a child on a copy of a prepared store, and what is found after.
 *
 * A *power cut* round records the child and builds, for some moments of the trace, states that the disk may be in when
 * the power fails there. A *fault* round lets a call of the child fail, or kills it there, several times over. All
 * choices follow from the seed. What a round has made is removed when it went well and left when it did not.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compareStates, Disk, type DiskState, readState, type Survival, writeState } from './disk.js';
import { carryOutAll } from './execute.js';
import {
  Chooser,
  type Mark,
  makePlansAtOnce,
  makeSteps,
  makeStepsAtOnce,
  type Plan,
  parseMarks,
  type Step,
  storesOf,
  World,
} from './plan.js';
import {
  describeRecord,
  type Fault,
  Kind,
  readTrace,
  type TraceRecord,
  watchedEnvironment,
} from './trace.js';
import { type Verification, Violation, verifyDisk } from './verify.js';

const CHILD = fileURLToPath(new URL('./child.js', import.meta.url));
const CHILD_TIMEOUT_MS = 120_000;
const STORE = 'a';
const BASES = 6;

export interface RoundResult {
  readonly kind: 'power cut' | 'fault';
  /** Power cuts that were looked at, and states of the disk that followed from them. */
  readonly cuts: number;
  readonly states: number;
  /** Children that met a fault, by what they met. */
  readonly faults: readonly string[];
  readonly steps: number;
}

/** A round that found something; `dir` has what it was found in. */
export class RoundFailure extends Error {
  override readonly name = 'RoundFailure';

  constructor(
    readonly dir: string,
    message: string,
  ) {
    super(message);
  }
}

export interface Base {
  readonly disk: string;
  readonly world: World;
  readonly fingerprintBits: number;
}

/** Memory if there is some to be had: what is fsynced there is not waited for. */
const fastDirectory = (): string => (existsSync('/dev/shm') ? '/dev/shm' : tmpdir());

/** Mixes two seeds into one. */
export const mix = (seed: number, n: number): number =>
  (Math.imul(seed ^ (n + 0x9e3779b9), 0x85ebca6b) ^ (n << 7) ^ (seed >>> 9)) >>> 0;

/** The rounds of one seed: they share prepared stores and a directory. */
export class Rounds {
  readonly dir: string;
  readonly #bases = new Map<number, Base>();

  constructor(
    readonly seed: number,
    parent: string = fastDirectory(),
  ) {
    this.dir = mkdtempSync(join(parent, 'livesnap-crash-'));
  }

  /** Removes everything. */
  drop(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** A store with some history, or (the first) none at all. */
  async #base(which: number): Promise<Base> {
    let base = this.#bases.get(which);
    if (base) return base;
    const disk = join(this.dir, `base-${which}`);
    mkdirSync(disk);
    const world = new World();
    const fingerprintBits = which % 2 === 0 ? 64 : 4;
    if (which > 0) {
      const choose = new Chooser(mix(this.seed, 1000 + which));
      const steps = makeSteps(choose, world, STORE, 4 + choose.below(5), [
        'save',
        'save',
        'save',
        'put',
        'remove',
        'tag',
      ]);
      await carryOutAll(
        {
          disk,
          fingerprintBits,
          contents: world.contents,
          say: (mark) => {
            if (mark.at === 'failed' || mark.at === 'bug') throw new Error(mark.message);
            world.take(mark);
          },
        },
        steps,
      );
    }
    base = { disk, world, fingerprintBits };
    this.#bases.set(which, base);
    return base;
  }

  async run(round: number, kind?: RoundResult['kind']): Promise<RoundResult> {
    const choose = new Chooser(mix(this.seed, round));
    const dir = join(this.dir, `round-${round}`);
    const which = kind ?? (choose.chance(0.5) ? 'power cut' : 'fault');
    const base = await this.#base(choose.below(BASES));
    mkdirSync(dir);
    try {
      const result = await (which === 'power cut'
        ? this.powerCut(dir, base, choose)
        : this.#faults(dir, base, choose));
      rmSync(dir, { recursive: true });
      return result;
    } catch (error) {
      throw new RoundFailure(dir, `${(error as Error).message}`);
    }
  }

  async powerCut(dir: string, base: Base, choose: Chooser): Promise<RoundResult> {
    const { fingerprintBits } = base;
    const world = base.world.copy();
    const plans = makePlans(choose, world);
    const stores = new Set([STORE, ...world.stores.keys(), ...plans.flat().flatMap(storesOf)]);
    if (plans.length > 1) for (const name of stores) world.store(name).keepsRemoved = true;
    // A sync that fails, and then the power: what was written before it is lost, whatever is synced later.
    const fault = choose.chance(0.2) ? failingSync(choose) : undefined;
    if (fault) for (const name of stores) world.store(name).disturbed = true;
    const { disk, trace } = await recordSteps(dir, base, plans, fault);
    const moments = sampleCuts(trace, choose, 7);
    let states = 0;
    let at = 0;
    const seen = new Set<string>();
    for (const cut of moments) {
      for (; at < cut; at++) take(disk, trace[at]!, world);
      for (let i = 0; i < 2; i++) {
        const survival = pickSurvival(choose);
        const state = disk.afterPowerCut(survival, choose.next);
        const verification = { fingerprintBits, repair: choose.chance(0.25), clean: choose.chance(0.6) };
        const key = digestOf(state) + verification.repair;
        if (seen.has(key)) continue;
        seen.add(key);
        await verifyState(dir, state, world, verification, trace, cut, survival);
        states++;
      }
    }
    return { kind: 'power cut', cuts: moments.length, states, faults: [], steps: plans.flat().length };
  }

  async #faults(dir: string, base: Base, choose: Chooser): Promise<RoundResult> {
    const { fingerprintBits } = base;
    const disk = join(dir, 'disk');
    cpSync(base.disk, disk, { recursive: true });
    const world = base.world.copy();
    const faults: string[] = [];
    let stepCount = 0;
    const times = 1 + choose.below(3);
    for (let i = 0; i < times; i++) {
      const plans = makeDisturbedPlans(choose, world);
      const children = plans.map((steps, j) => {
        // Of several at once some are left alone.
        const fault = j > 0 && choose.chance(0.3) ? null : pickFault(choose, steps);
        return { steps, fault, name: plans.length > 1 ? `${i}-${j}` : String(i) };
      });
      const what = children.map(({ fault }) => describeFault(fault)).join(', ');
      writeFileSync(join(dir, `faults-${i}`), what);
      for (const name of [STORE, ...plans.flat().flatMap(storesOf)]) world.store(name).expectFaults();
      const known = world.contents.all();
      const ends = await Promise.all(
        children.map(async ({ steps, fault, name }) => {
          const plan = { fingerprintBits, known, steps };
          const [planFile, marks] = [join(dir, `plan-${name}`), join(dir, `marks-${name}`)];
          return { marks, fault, ended: await runChild(disk, planFile, plan, marks, fault ? { fault } : {}) };
        }),
      );
      for (const { marks, fault, ended } of ends) {
        const met = takeMarks(marks, world, fault);
        const isKill = fault?.action === 'before' || fault?.action === 'after';
        if (isKill ? ended !== 0 && ended !== 'SIGKILL' : ended !== 0)
          throw new Violation(`the child ended with ${ended} under ${describeFault(fault)}`);
        if (fault && (isKill ? ended === 'SIGKILL' : met)) faults.push(fault.action);
      }
      stepCount += plans.flat().length;
      for (const model of world.stores.values()) {
        model.disturbed = true;
        model.keepsRemoved ||= plans.length > 1;
      }
      try {
        if (choose.chance(0.3)) {
          const copy = join(dir, `repaired-${i}`);
          cpSync(disk, copy, { recursive: true });
          await verifyDisk(copy, world, { fingerprintBits, repair: true, clean: choose.chance(0.5) });
        }
        const clean = i === times - 1 || choose.chance(0.4);
        const found = await verifyDisk(disk, world, { fingerprintBits, repair: false, clean });
        for (const [name, listed] of found) world.store(name).settle(listed, clean);
      } catch (error) {
        throw new Violation(`after ${what}: ${(error as Error).message}`);
      }
    }
    return { kind: 'fault', cuts: 0, states: 0, faults, steps: stepCount };
  }
}

/**
 * Carries out steps on a disk without a store and looks at states from every decisive moment. With `forget` the syncs
 * of those paths are left out of the trace, as if the store had not made them; it is told the names that something was renamed to so far. Throws
 * a {@link RoundFailure}.
 */
export async function everyDecisiveMoment(
  dir: string,
  seed: number,
  steps: readonly Step[],
  { forget = () => false }: { forget?: (path: string, made: ReadonlySet<string>) => boolean } = {},
): Promise<{ cuts: number; states: number }> {
  const choose = new Chooser(seed);
  const world = new World();
  const empty = join(dir, 'empty');
  mkdirSync(empty, { recursive: true });
  const base = { disk: empty, world, fingerprintBits: 64 };
  const { disk, trace: whole } = await recordSteps(dir, base, [steps]);
  const paths = new Map<number, string>();
  const made = new Set<string>();
  const trace = whole.filter(({ kind, inode, first, second }) => {
    if (kind === Kind.create || kind === Kind.makeDirectory) paths.set(inode, first.toString());
    if (kind === Kind.rename) made.add(second.toString());
    return kind !== Kind.sync || !forget(paths.get(inode) ?? '', made);
  });
  const moments = decisiveCuts(trace);
  const seen = new Set<string>();
  let at = 0;
  for (const [i, cut] of moments.entries()) {
    for (; at < cut; at++) take(disk, trace[at]!, world);
    const rotating = SURVIVALS[1 + (i % (SURVIVALS.length - 1))]!;
    for (const survival of [SURVIVALS[0]!, rotating, { data: 'some', names: 'some' } as const]) {
      const state = disk.afterPowerCut(survival, choose.next);
      const key = digestOf(state) + [...world.stores.values()].map(({ must }) => must.join()).join(';');
      if (seen.has(key)) continue;
      seen.add(key);
      const verification = { fingerprintBits: 64, repair: seen.size % 4 === 0, clean: seen.size % 2 === 0 };
      try {
        await verifyState(dir, state, world, verification, trace, cut, survival);
      } catch (error) {
        throw new RoundFailure(dir, (error as Error).message);
      }
    }
  }
  return { cuts: moments.length, states: seen.size };
}

const take = (disk: Disk, record: TraceRecord, world: World): void => {
  if (record.kind === Kind.mark) for (const mark of parseMarks(record.first.toString())) world.take(mark);
  else disk.apply(record);
};

/** For one process, or (a third of the time) for several at once. */
function makeDisturbedPlans(choose: Chooser, world: World): Step[][] {
  if (choose.chance(0.33)) return makePlansAtOnce(choose, world, STORE, 2 + choose.below(2));
  if (choose.chance(0.2)) return [makeStepsAtOnce(choose, world, STORE)];
  return [makeSteps(choose, world, STORE, 1 + choose.below(3))];
}

const describeFault = (fault: Fault | null): string =>
  fault === null
    ? 'no fault'
    : `${fault.classes}:${fault.nth}:${fault.action}:${fault.always ? 'always' : 'once'}`;

/** For one process, steps one after the other or some at once; or for several processes at once. */
function makePlans(choose: Chooser, world: World): Step[][] {
  const kind = choose.below(4);
  if (kind === 0) return makePlansAtOnce(choose, world, STORE, 2 + choose.below(2));
  return [
    kind === 1 ? makeStepsAtOnce(choose, world, STORE) : makeSteps(choose, world, STORE, 1 + choose.below(4)),
  ];
}

/**
 * Carries out plans, each in a child of its own and all at once. Returns the model of the disk before the first record,
 * and the records; they account for every byte that the children left.
 */
export async function recordSteps(
  dir: string,
  base: Base,
  plans: readonly (readonly Step[])[],
  fault?: Fault,
): Promise<{ disk: Disk; trace: TraceRecord[] }> {
  const live = join(dir, 'disk');
  cpSync(base.disk, live, { recursive: true });
  const disk = new Disk(live);
  const end = new Disk(live);
  const { fingerprintBits, world } = base;
  const traceFile = join(dir, 'trace');
  const children = plans.map(async (steps, i) => {
    const marks = join(dir, `marks-${i}`);
    const plan = { fingerprintBits, known: world.contents.all(), steps };
    const watch = { trace: traceFile, ...(fault && { fault }) };
    const ended = await runChild(live, join(dir, `plan-${i}`), plan, marks, watch);
    if (ended !== 0) throw new Violation(`the child ended with ${ended}`);
    for (const mark of parseMarks(readFileSync(marks, 'utf8')))
      if (mark.at === 'bug' || (mark.at === 'failed' && !fault && !isOfOthers(mark)))
        throw new Violation(`undisturbed, ${mark.step?.do} said: ${mark.message}`);
  });
  for (const child of await Promise.allSettled(children)) if (child.status === 'rejected') throw child.reason;
  const trace = readTrace(traceFile);
  for (const record of trace) if (record.kind !== Kind.mark) end.apply(record);
  const escaped = compareStates(end.current(), readState(live));
  if (escaped.length > 0) throw new Violation(`the recorder missed something: ${escaped.join('; ')}`);
  return { disk, trace };
}

type Failed = Extract<Mark, { at: 'failed' }>;

/**
 * A snapshot that is removed by one may not be there for the other; and if it was to be copied, nor is the store that it
 * would have been copied to.
 */
const isOfOthers = ({ step, code }: Failed): boolean =>
  code === 'NO_SUCH_SNAPSHOT' || (step.do === 'repair' && code === 'NO_SUCH_FILE');

/** Carries a plan out in a child of its own; gives how it ended, 0 or the signal. */
export async function runChild(
  disk: string,
  planFile: string,
  plan: Plan,
  marks: string,
  watch: { trace?: string; fault?: Fault },
): Promise<number | string> {
  writeFileSync(planFile, JSON.stringify(plan));
  writeFileSync(marks, '');
  const child = spawn(process.execPath, ['--enable-source-maps', CHILD, disk, marks, planFile], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: watchedEnvironment(disk, { marks, ...watch }),
    timeout: CHILD_TIMEOUT_MS,
    killSignal: 'SIGABRT',
  });
  let said = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  return code === 0 ? 0 : code === null ? signal! : `status ${code}: ${said}`;
}

/** A file that cannot be opened: damage as far as the step can tell, though there is none. */
const UNREADABLE = 'DAMAGED, unreadable';

/**
 * Codes that a step may fail with by what the fault was. That there is no such snapshot may always follow, from an
 * earlier step that failed or from another process.
 */
const EXPECTED_CODES: Record<Fault['action'], readonly string[]> = {
  ENOSPC: ['NO_SPACE'],
  EIO: ['SYSTEM', 'NO_SPACE', UNREADABLE],
  EMFILE: ['SYSTEM', 'NO_SPACE'],
  before: [],
  after: [],
};

function isExpected(mark: Failed, fault: Fault | null): boolean {
  const { step, code, message } = mark;
  const what = code === 'DAMAGED' && message.includes('the disk cannot read it') ? UNREADABLE : code;
  if (isOfOthers(mark) || (fault && EXPECTED_CODES[fault.action].includes(what))) return true;
  if (fault === null) return false;
  // SQLite does not say why it cannot make a file, and tries to open for reading what it could not open for writing.
  if (message.endsWith('unable to open database file') || code === 'READ_ONLY') return true;
  if (step.do === 'import') return code === 'NO_SUCH_FILE' || code === 'NOT_A_STORE'; // as its export had
  return step.do === 'repair' && (code === 'NO_SUCH_FILE' || code === 'NOT_A_STORE'); // its making had failed
}

/** True when a step failed. */
function takeMarks(file: string, world: World, fault: Fault | null): boolean {
  let met = false;
  for (const mark of parseMarks(readFileSync(file, 'utf8'))) {
    world.take(mark);
    if (mark.at === 'bug') throw new Violation(`${JSON.stringify(mark.step)} said: ${mark.message}`);
    if (mark.at !== 'failed') continue;
    met = true;
    if (!isExpected(mark, fault))
      throw new Violation(
        `${mark.step.do} failed with ${mark.code} (${mark.message}) under ${describeFault(fault)}`,
      );
  }
  return met;
}

function pickFault(choose: Chooser, steps: readonly Step[]): Fault {
  const nth = choose.chance(0.3) ? 1 + choose.below(100) : 1 + Math.floor(2 ** (choose.below(600) / 100));
  const action = choose.pick(['ENOSPC', 'EIO', 'EIO', 'EMFILE', 'before', 'after', 'after'] as const);
  switch (action) {
    case 'ENOSPC':
      return { classes: 'wc', nth, action, always: choose.chance(0.6) };
    case 'EIO': {
      const classes = choose.pick(['wsdruco', 'wsdruc', 'ws', 's', 'd', 'r', 'u', 'c', 'w']);
      // What repair cannot open it sets aside; that is damage, and not for here.
      if (classes.includes('o') && steps.some((step) => step.do === 'repair'))
        return pickFault(choose, steps);
      return {
        classes,
        nth: classes.length > 1 ? nth : 1 + choose.below(8),
        action,
        always: choose.chance(0.4),
      };
    }
    case 'EMFILE':
      return { classes: 'co', nth: 1 + choose.below(40), action, always: choose.chance(0.3) };
    default:
      return { classes: choose.pick(['wsdruc', 'wsdruc', 'sdruc', 'sd', 'ru']), nth, action, always: false };
  }
}

const failingSync = (choose: Chooser): Fault => ({
  classes: choose.pick(['s', 'd']),
  nth: 1 + choose.below(8),
  action: 'EIO',
  always: choose.chance(0.2),
});

/** Moments of a trace: mostly beside what decides something (syncs, names, marks), else anywhere. Ascending. */
export function sampleCuts(trace: readonly TraceRecord[], choose: Chooser, count: number): number[] {
  const decisive = decisiveCuts(trace);
  const cuts = new Set<number>();
  for (let i = 0; i < count; i++)
    cuts.add(
      decisive.length > 0 && choose.chance(0.7) ? choose.pick(decisive) : choose.below(trace.length + 1),
    );
  return [...cuts].sort((a, b) => a - b);
}

/** Before and after everything but plain writes. */
export function decisiveCuts(trace: readonly TraceRecord[]): number[] {
  const cuts = new Set([0, trace.length]);
  trace.forEach(({ kind }, i) => {
    if (kind === Kind.write || kind === Kind.truncate || kind === Kind.allocate) return;
    cuts.add(i);
    cuts.add(i + 1);
  });
  return [...cuts].sort((a, b) => a - b);
}

/** One of each that is extreme, and what lies between. */
export const SURVIVALS: readonly Survival[] = [
  { data: 'none', names: 'none' },
  { data: 'all', names: 'all' },
  { data: 'none', names: 'all' },
  { data: 'sizes', names: 'all' },
  { data: 'all', names: 'none' },
  { data: 'some', names: 'some' },
  { data: 'prefix', names: 'prefix' },
  { data: 'some', names: 'all' },
  { data: 'all', names: 'some' },
];

const pickSurvival = (choose: Chooser): Survival =>
  choose.chance(0.5) ? { data: 'some', names: 'some' } : choose.pick(SURVIVALS);

export function digestOf(state: DiskState): string {
  const hash = createHash('sha256');
  for (const [path, bytes] of [...state].sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`${path}\0${bytes?.length ?? 'directory'}\0`);
    if (bytes) hash.update(bytes);
  }
  return hash.digest('hex');
}

/** Opens a state as a store; what it says when that is not right names the moment. */
export async function verifyState(
  dir: string,
  state: DiskState,
  world: World,
  verification: Verification,
  trace: readonly TraceRecord[],
  cut: number,
  survival: Survival,
): Promise<void> {
  const at = join(dir, 'state');
  rmSync(at, { recursive: true, force: true });
  mkdirSync(at);
  writeState(at, state);
  try {
    await verifyDisk(at, world, verification);
  } catch (error) {
    // The state has been changed by looking at it: lay it anew.
    const kept = join(dir, 'state-as-found');
    mkdirSync(kept);
    writeState(kept, state);
    const near = trace.slice(Math.max(0, cut - 4), cut + 2).map(describeRecord);
    throw new Violation(
      `the power cut before record ${cut} of ${trace.length} (data ${survival.data}, names ${survival.names}` +
        `${verification.repair ? ', repaired' : ''}): ${(error as Error).stack}\n  ${near.join('\n  ')}`,
    );
  }
}
