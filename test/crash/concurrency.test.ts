/**
 * Several processes work on one store at once, each by a seeded plan, and some are killed. What was reported to each of
 * them holds. Events are ordered by the host's monotonic clock, which the processes share.
 *
 * LIVESNAP_SEED=N repeats the plans, but not which process is faster.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Store } from '../../src/store/store.js';
import { dropScratch, load, scratchDir } from '../store/scratch.js';
import { Chooser } from './chooser.js';
import { type Content, Contents, makeContent } from './contents.js';
import { isCopyStep, type Mark, parseMarks, type Step } from './plan.js';
import { type Fault, watchedEnvironment } from './trace.js';
import { expectNoOrphans } from './verify.js';

const CHILD = fileURLToPath(new URL('./child.js', import.meta.url));
const PROCESSES = 5;
/** Steps of each process. Set it higher for a long run. */
const STEPS = Number(process.env.LIVESNAP_CONCURRENCY_STEPS ?? 14);
/** Processes that are killed, one after the other. */
const KILLS = 3;
const seed = Number(process.env.LIVESNAP_SEED ?? randomInt(2 ** 32));

/** The second store, to which snapshots are copied. */
const OTHER = 'b';
const TAGS = ['alpha', 'beta', 'gamma', 'delta'];

/** Steps that name snapshots of all processes. Some do not exist yet, or any more. */
function planOf(choose: Chooser, own: readonly Content[], others: readonly Content[]): Step[] {
  const store = 'a';
  const waiting = [...own];
  const label = (): string => choose.pick([...own.slice(0, own.length - waiting.length), ...others]).label;
  return Array.from({ length: STEPS }, (): Step => {
    switch (choose.below(12)) {
      case 0:
      case 1:
        return { do: 'load', store, label: label() };
      case 2:
        return { do: 'remove', store, labels: [label()] };
      case 3:
        return { do: choose.pick(['gc', 'recompress'] as const), store };
      case 4:
        return { do: 'check', store };
      case 5:
        return { do: 'tag', store, label: label(), tags: choose.some(TAGS, 1 + choose.below(2)) };
      case 6:
      case 7:
        return { do: choose.pick(['copy to', 'copy from']), store: OTHER, from: store, label: label() };
      case 8:
        return choose.chance(0.7)
          ? { do: 'load', store: OTHER, label: label() }
          : { do: choose.pick(['gc', 'check']), store: OTHER };
      default: {
        const content = waiting.shift();
        if (!content) return { do: 'reopen', store };
        const tags = choose.chance(0.3) ? choose.some(TAGS, 1 + choose.below(2)) : [];
        return { do: content.kind === 'file' ? 'put' : 'save', store, content, tags };
      }
    }
  });
}

interface Span {
  begun: number;
  done: number;
}

/** The snapshot that a step uses, as STORE/LABEL. */
const subjectOf = (step: Step): string | null => {
  if ('content' in step) return `${step.store}/${step.content.label}`;
  if (step.do === 'remove') return `${step.store}/${step.labels[0]!}`;
  return 'label' in step ? `${isCopyStep(step) ? step.from : step.store}/${step.label}` : null;
};

/** The marks of all processes, and what follows from them. Snapshots are named STORE/LABEL. */
class History {
  readonly saved = new Map<string, Span>();
  readonly removed = new Map<string, Span>();

  constructor(readonly marks: readonly Mark[]) {
    for (const { step, at, ns = 0 } of marks) {
      if (!step || (at !== 'begin' && at !== 'done')) continue;
      if ('content' in step) note(this.saved, subjectOf(step)!, at, ns);
      else if (isCopyStep(step)) note(this.saved, `${step.store}/${step.label}`, at, ns);
      else if (step.do === 'remove') note(this.removed, subjectOf(step)!, at, ns);
    }
  }

  /** Whether a snapshot existed during all of a span of time. */
  wasThere(subject: string, from: number, to: number): boolean {
    const saved = this.saved.get(subject);
    const removed = this.removed.get(subject);
    return saved !== undefined && saved.done < from && (removed === undefined || removed.begun > to);
  }
}

/** Notes when something first began, and was first done. */
function note(spans: Map<string, Span>, subject: string, at: 'begin' | 'done', ns: number): void {
  const span = spans.get(subject) ?? { begun: Number.POSITIVE_INFINITY, done: Number.POSITIVE_INFINITY };
  if (at === 'begin') span.begun = Math.min(span.begun, ns);
  else span.done = Math.min(span.done, ns);
  spans.set(subject, span);
}

describe(`processes that share a store (seed ${seed})`, () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const fingerprintBits of [64, 4])
    it(`get what was reported to them, although others are killed (fingerprints of ${fingerprintBits} bits)`, async function () {
      this.timeout(600_000);
      const dir = scratchDir(this);
      const disk = join(dir, 'disk');
      mkdirSync(disk);
      const choose = new Chooser(seed ^ fingerprintBits);
      const count = PROCESSES + KILLS;
      const contents = Array.from({ length: count }, (_, process) => {
        const made: Content[] = [];
        for (let i = 0; i < STEPS; i++) {
          const kind = choose.chance(0.25) ? 'file' : 'machine';
          const parents = made.filter((content) => content.kind === 'machine');
          made.push(makeContent(choose, `p${process}-${i}`, kind, parents));
        }
        return made;
      });
      const known = contents.flat();
      const start = async (process: number, fault?: Fault): Promise<string | null> => {
        const marks = join(dir, `marks-${process}`);
        writeFileSync(marks, '');
        const steps = planOf(choose, contents[process]!, known);
        const plan = join(dir, `plan-${process}`);
        writeFileSync(plan, JSON.stringify({ fingerprintBits, known, steps }));
        const child = spawn(globalThis.process.execPath, ['--enable-source-maps', CHILD, disk, marks, plan], {
          stdio: ['ignore', 'ignore', 'inherit'],
          env: watchedEnvironment(disk, { marks, ...(fault && { fault }) }),
        });
        const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
        assert.ok(code === 0 || signal === 'SIGKILL', `a child ended with ${code ?? signal}`);
        return signal;
      };
      const killed = async (): Promise<number> => {
        let kills = 0;
        for (let i = 0; i < KILLS; i++) {
          const nth = 1 + choose.below(150);
          const action = choose.pick(['before', 'after'] as const);
          if ((await start(PROCESSES + i, { classes: 'wsdruc', nth, action, always: false })) === 'SIGKILL')
            kills++;
        }
        return kills;
      };
      const kills = killed();
      await Promise.all(Array.from({ length: PROCESSES }, (_, process) => start(process)));
      await kills;

      const lines = Array.from({ length: count }, (_, process) =>
        parseMarks(readFileSync(join(dir, `marks-${process}`), 'utf8')),
      );
      const history = new History(lines.flat());
      for (const line of lines)
        for (const [i, mark] of line.entries()) {
          const what = `${mark.step?.do} ${JSON.stringify(mark)}`;
          assert.notEqual(mark.at, 'bug', what);
          if (mark.at !== 'failed') continue;
          const { step } = mark;
          const begun = line[i - 1]!.ns!;
          // Another process may be copying the same snapshot.
          if (isCopyStep(step) && mark.code === 'STORE_BUSY') continue;
          assert.equal(mark.code, 'NO_SUCH_SNAPSHOT', what);
          if (!isCopyStep(step) && step.do !== 'load' && step.do !== 'tag' && step.do !== 'remove')
            assert.fail(what);
          assert.ok(!history.wasThere(subjectOf(step)!, begun, mark.ns!), `the snapshot existed: ${what}`);
        }

      const all = new Contents(known);
      for (const name of ['a', OTHER]) await expectAsPromised(name, disk, fingerprintBits, history, all);
    });
});

async function expectAsPromised(
  name: string,
  disk: string,
  fingerprintBits: number,
  history: History,
  all: Contents,
): Promise<void> {
  const store = Store.open(join(disk, name), { write: true, create: true, fingerprintBits });
  try {
    const expectAll = async (): Promise<void> => {
      const listed = new Set(store.list().map(({ vm }) => `${name}/${vm}`));
      for (const [subject, { done }] of history.saved)
        if (
          subject.startsWith(`${name}/`) &&
          done < Number.POSITIVE_INFINITY &&
          !history.removed.has(subject)
        )
          assert.ok(listed.has(subject), `${subject} was saved and is missing`);
      for (const [subject, { done }] of history.removed)
        if (done < Number.POSITIVE_INFINITY)
          assert.ok(!listed.has(subject), `${subject} was removed and exists`);
      for (const { id, vm } of store.list()) {
        const [bytes] = Object.values(await load(store, id));
        assert.ok(bytes!.equals(all.bytes(vm!)), `${name}/${vm} has other bytes than were saved`);
      }
      const { ok, problems } = await store.check({ readData: true });
      assert.ok(ok, JSON.stringify(problems));
    };
    await expectAll();
    await store.gc({ dryRun: false });
    expectNoOrphans(join(disk, name), store.list());
    await expectAll();
  } finally {
    store.close();
  }
}
