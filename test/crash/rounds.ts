/**
 * Rounds of the crash tests: each carries out a plan on a copy of a prepared store, and verifies what is left.
 *
 * - A round with power cuts records the children. It builds states that the disk may have when the power fails at some
 *   moments of the trace, and verifies each.
 * - A round with faults lets a call of a child fail, or kills it there, several times in a row.
 *
 * All choices follow from the seed. A round removes its files if it succeeds, and leaves them if it fails.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeIndexOlder } from '../store/older-index.js';
import { type Base, recordSteps, runChild } from './children.js';
import { Chooser } from './chooser.js';
import { carryOutAll } from './execute.js';
import { describeFault, failingSync, pickFault, takeMarks } from './faults.js';
import { makePlansAtOnce, makeSteps, makeStepsAtOnce } from './make-plans.js';
import { World } from './model.js';
import { type Step, storesOf } from './plan.js';
import {
  decisiveCuts,
  digestOf,
  pickSurvival,
  SURVIVALS,
  sampleCuts,
  take,
  verifyState,
} from './power-cuts.js';
import { type Fault, Kind } from './trace.js';
import { Violation, verifyDisk } from './verify.js';

const STORE = 'a';
const BASES = 9;
/** Bases whose index has an earlier version. Up to version 2 a snapshot has at most one tag. */
const OLDER_INDEXES: ReadonlyMap<number, number> = new Map([
  [5, 3],
  [6, 1],
  [7, 2],
  [8, 4],
]);

const withOneTag = (step: Step): Step =>
  'content' in step ? { ...step, tags: step.tags.slice(0, 1) } : step;

export interface RoundResult {
  readonly kind: 'power cut' | 'fault';
  /** Moments of power cuts, and states of the disk that were verified. */
  readonly cuts: number;
  readonly states: number;
  /** The faults that children met. */
  readonly faults: readonly string[];
  readonly steps: number;
}

/** A round that failed. `dir` is left as it was found. */
export class RoundFailure extends Error {
  override readonly name = 'RoundFailure';

  constructor(
    readonly dir: string,
    message: string,
  ) {
    super(message);
  }
}

/** A file system in memory where there is one: an fsync there takes no time. */
const fastDirectory = (): string => (existsSync('/dev/shm') ? '/dev/shm' : tmpdir());

/** Mixes two seeds into one. */
export const mix = (seed: number, n: number): number =>
  (Math.imul(seed ^ (n + 0x9e3779b9), 0x85ebca6b) ^ (n << 7) ^ (seed >>> 9)) >>> 0;

/** The rounds of one seed. They share prepared stores and a directory. */
export class Rounds {
  readonly dir: string;
  readonly #bases = new Map<number, Base>();

  constructor(
    readonly seed: number,
    parent: string = fastDirectory(),
  ) {
    this.dir = mkdtempSync(join(parent, 'livesnap-crash-'));
  }

  /** Removes the directory. */
  drop(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** A store with some history. The first base has no store, and the last ones have earlier indexes. */
  async #base(which: number): Promise<Base> {
    let base = this.#bases.get(which);
    if (base) return base;
    const disk = join(this.dir, `base-${which}`);
    mkdirSync(disk);
    const world = new World();
    const fingerprintBits = which % 2 === 0 ? 64 : 4;
    if (which > 0) {
      const choose = new Chooser(mix(this.seed, 1000 + which));
      const indexVersion = OLDER_INDEXES.get(which);
      const made = makeSteps(choose, world, STORE, 4 + choose.below(5), [
        'save',
        'save',
        'save',
        'put',
        'remove',
        ...(indexVersion === undefined ? (['tag'] as const) : []),
      ]);
      const steps = indexVersion === undefined ? made : made.map(withOneTag);
      await carryOutAll(
        {
          disk,
          fingerprintBits,
          contents: world.contents,
          mark: (mark) => {
            if (mark.at === 'failed' || mark.at === 'bug') throw new Error(mark.message);
            world.take(mark);
          },
        },
        steps,
      );
      if (indexVersion !== undefined) makeIndexOlder(join(disk, STORE), indexVersion);
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
        // Of several children at once, some meet no fault.
        const fault = j > 0 && choose.chance(0.3) ? null : pickFault(choose, steps);
        return { steps, fault, name: plans.length > 1 ? `${i}-${j}` : String(i) };
      });
      const what = children.map(({ fault }) => describeFault(fault)).join(', ');
      writeFileSync(join(dir, `faults-${i}`), what);
      for (const name of [STORE, ...plans.flat().flatMap(storesOf)]) world.store(name).expectFaults();
      if (plans.length > 1) for (const model of world.stores.values()) model.keepsRemoved = true;
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
 * Carries out steps on an empty disk or on `base`, and verifies states of every decisive moment. Syncs of paths for which `forget` is
 * true are left out of the trace, as if the store had not made them; `made` has the names to which something was renamed
 * so far. With a `fault`, which a step meets, each state is verified without its index. Errors: {@link RoundFailure}.
 */
export async function everyDecisiveMoment(
  dir: string,
  seed: number,
  steps: readonly Step[],
  {
    forget = () => false,
    fault,
    base = emptyBase(dir),
  }: { forget?: (path: string, made: ReadonlySet<string>) => boolean; fault?: Fault; base?: Base } = {},
): Promise<{ cuts: number; states: number }> {
  const choose = new Chooser(seed);
  const { world } = base;
  const { disk, trace: whole } = await recordSteps(dir, base, [steps], fault);
  if (fault) for (const name of steps.flatMap(storesOf)) world.store(name).disturbed = true;
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
      const repair = fault !== undefined || seen.size % 4 === 0;
      const verification = { fingerprintBits: 64, repair, clean: seen.size % 2 === 0 };
      try {
        await verifyState(dir, state, world, verification, trace, cut, survival);
      } catch (error) {
        throw new RoundFailure(dir, (error as Error).message);
      }
    }
  }
  return { cuts: moments.length, states: seen.size };
}

function emptyBase(dir: string): Base {
  const disk = join(dir, 'empty');
  mkdirSync(disk, { recursive: true });
  return { disk, world: new World(), fingerprintBits: 64 };
}

/** Steps for one process, or (a third of the time) for several at once. */
function makeDisturbedPlans(choose: Chooser, world: World): Step[][] {
  if (choose.chance(0.33)) return makePlansAtOnce(choose, world, STORE, 2 + choose.below(2));
  if (choose.chance(0.2)) return [makeStepsAtOnce(choose, world, STORE)];
  return [makeSteps(choose, world, STORE, 1 + choose.below(3))];
}

/** Steps for one process, one after the other or some at once; or for several processes at once. */
function makePlans(choose: Chooser, world: World): Step[][] {
  const kind = choose.below(4);
  if (kind === 0) return makePlansAtOnce(choose, world, STORE, 2 + choose.below(2));
  return [
    kind === 1 ? makeStepsAtOnce(choose, world, STORE) : makeSteps(choose, world, STORE, 1 + choose.below(4)),
  ];
}
