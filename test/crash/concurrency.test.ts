/**
 * Several processes work on one store at once, by a seeded plan each, and some are killed in the middle. What was
 * promised to each of them holds; the order of events is that of the host's monotonic clock, which they share.
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
import { Chooser, type Content, Contents, type Mark, makeContent, parseMarks, type Step } from './plan.js';
import { type Fault, watchedEnvironment } from './trace.js';
import { expectNoOrphans } from './verify.js';

const CHILD = fileURLToPath(new URL('./child.js', import.meta.url));
const PROCESSES = 5;
/** Steps of each process, and processes killed one after the other; more for a long run. */
const STEPS = Number(process.env.LIVESNAP_CONCURRENCY_STEPS ?? 14);
const KILLS = 3;
const seed = Number(process.env.LIVESNAP_SEED ?? randomInt(2 ** 32));

const TAGS = ['alpha', 'beta', 'gamma', 'delta'];

/** Steps that name snapshots of all processes: some are not there yet, or no more. */
function planOf(choose: Chooser, own: readonly Content[], others: readonly Content[]): Step[] {
  const store = 'a';
  const waiting = [...own];
  const label = (): string => choose.pick([...own.slice(0, own.length - waiting.length), ...others]).label;
  return Array.from({ length: STEPS }, (): Step => {
    switch (choose.below(9)) {
      case 0:
      case 1:
        return { do: 'load', store, label: label() };
      case 2:
        return { do: 'remove', store, labels: [label()] };
      case 3:
        return { do: 'gc', store };
      case 4:
        return { do: 'check', store };
      case 5:
        return { do: 'tag', store, label: label(), tag: choose.pick(TAGS) };
      default: {
        const content = waiting.shift();
        if (!content) return { do: 'reopen', store };
        const tag = choose.chance(0.3) ? choose.pick(TAGS) : null;
        return { do: content.kind === 'file' ? 'put' : 'save', store, content, tag };
      }
    }
  });
}

/** What all processes said, and what follows from it. */
class History {
  readonly saved = new Map<string, { begun: number; done: number }>();
  readonly removed = new Map<string, { begun: number; done: number }>();

  constructor(readonly marks: readonly Mark[]) {
    const never = Number.POSITIVE_INFINITY;
    for (const mark of marks) {
      const { step, ns = 0 } = mark;
      if (step?.do === 'save' || step?.do === 'put') {
        const { label } = step.content;
        if (mark.at === 'begin') this.saved.set(label, { begun: ns, done: never });
        else if (mark.at === 'done') this.saved.get(label)!.done = ns;
      } else if (step?.do === 'remove' && (mark.at === 'begin' || mark.at === 'done')) {
        const label = step.labels[0]!;
        const known = this.removed.get(label) ?? { begun: never, done: never };
        if (mark.at === 'begin') known.begun = Math.min(known.begun, ns);
        else known.done = Math.min(known.done, ns);
        this.removed.set(label, known);
      }
    }
  }

  /** Whether a snapshot was there all the time from one moment to another. */
  wasThere(label: string, from: number, to: number): boolean {
    const saved = this.saved.get(label);
    const removed = this.removed.get(label);
    return saved !== undefined && saved.done < from && (removed === undefined || removed.begun > to);
  }
}

describe(`processes at work on one store at once (seed ${seed})`, () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const fingerprintBits of [64, 4])
    it(`keep what each was promised, whoever is killed meanwhile; fingerprints of ${fingerprintBits} bits`, async function () {
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
          assert.equal(mark.code, 'NO_SUCH_SNAPSHOT', what);
          const { step } = mark;
          if (step.do !== 'load' && step.do !== 'tag' && step.do !== 'remove') assert.fail(what);
          const label = step.do === 'remove' ? step.labels[0]! : step.label;
          const begun = line[i - 1]!.ns!;
          assert.ok(!history.wasThere(label, begun, mark.ns!), `it was there: ${what}`);
        }

      const store = Store.open(join(disk, 'a'), { write: true, fingerprintBits });
      try {
        const all = new Contents(known);
        const expectAll = async (): Promise<void> => {
          const listed = new Set(store.list().map(({ vm }) => vm!));
          for (const [label, saved] of history.saved) {
            const removed = history.removed.get(label);
            if (saved.done < Number.POSITIVE_INFINITY && removed === undefined)
              assert.ok(listed.has(label), `${label} was saved and is not there`);
            if (removed && removed.done < Number.POSITIVE_INFINITY)
              assert.ok(!listed.has(label), `${label} was removed and is there`);
          }
          for (const { id, vm } of store.list()) {
            const [bytes] = Object.values(await load(store, id));
            assert.ok(bytes!.equals(all.bytes(vm!)), `${vm} has other bytes than were saved`);
          }
          const { ok, problems } = await store.check({ readData: true });
          assert.ok(ok, JSON.stringify(problems));
        };
        await expectAll();
        await store.gc({ dryRun: false });
        expectNoOrphans(join(disk, 'a'), store.list());
        await expectAll();
      } finally {
        store.close();
      }
    });
});
