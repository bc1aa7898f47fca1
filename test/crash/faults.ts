/** Chooses the faults of children, and checks that a child which met one failed as it should. */
import { readFileSync } from 'node:fs';
import type { Chooser } from './chooser.js';
import type { World } from './model.js';
import { type Mark, parseMarks, type Step } from './plan.js';
import type { Fault } from './trace.js';
import { Violation } from './verify.js';

export const describeFault = (fault: Fault | null): string =>
  fault === null
    ? 'no fault'
    : `${fault.classes}:${fault.nth}:${fault.action}:${fault.always ? 'always' : 'once'}`;

type Failed = Extract<Mark, { at: 'failed' }>;

/**
 * Whether a step failed because of another process or an earlier step. The snapshot may be gone, and so may be the store
 * that it was to be copied to.
 */
export const isOfOthers = ({ step, code }: Failed): boolean =>
  code === 'NO_SUCH_SNAPSHOT' || (step.do === 'repair' && code === 'NO_SUCH_FILE');

/** A file that a fault made unreadable. The step cannot tell that from damage. */
const UNREADABLE = 'DAMAGED, unreadable';

/** Codes with which a step may fail under each fault. {@link isOfOthers} names others that are always possible. */
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
  // SQLite does not report why it cannot create a file. It opens for reading what it cannot open for writing.
  if (message.endsWith('unable to open database file') || code === 'READ_ONLY') return true;
  // Nor why it cannot shorten one, which takes space on some file systems.
  if (message.endsWith('disk I/O error') && code === 'SYSTEM') return true;
  if (step.do === 'import') return code === 'NO_SUCH_FILE' || code === 'NOT_A_STORE'; // the export failed
  return step.do === 'repair' && (code === 'NO_SUCH_FILE' || code === 'NOT_A_STORE'); // making the store failed
}

/** Adds the marks of a child to the model. Returns whether a step failed. Errors: {@link Violation}. */
export function takeMarks(file: string, world: World, fault: Fault | null): boolean {
  let met = false;
  for (const mark of parseMarks(readFileSync(file, 'utf8'))) {
    world.take(mark);
    if (mark.at === 'bug') throw new Violation(`${JSON.stringify(mark.step)} ended with: ${mark.message}`);
    if (mark.at !== 'failed') continue;
    met = true;
    if (!isExpected(mark, fault))
      throw new Violation(
        `${mark.step.do} failed with ${mark.code} (${mark.message}) under ${describeFault(fault)}`,
      );
  }
  return met;
}

export function pickFault(choose: Chooser, steps: readonly Step[]): Fault {
  const nth = choose.chance(0.3) ? 1 + choose.below(100) : 1 + Math.floor(2 ** (choose.below(600) / 100));
  const action = choose.pick(['ENOSPC', 'EIO', 'EIO', 'EMFILE', 'before', 'after', 'after'] as const);
  switch (action) {
    case 'ENOSPC':
      return { classes: 'wc', nth, action, always: choose.chance(0.6) };
    case 'EIO': {
      const classes = choose.pick(['wsdruco', 'wsdruc', 'ws', 's', 'd', 'r', 'u', 'c', 'w']);
      // repair sets a file aside that it cannot open. That is a loss, which these rounds do not test.
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

/** A sync that fails some time before the power does: a later sync does not repair that. */
export const failingSync = (choose: Chooser): Fault => ({
  classes: choose.pick(['s', 'd']),
  nth: 1 + choose.below(8),
  action: 'EIO',
  always: choose.chance(0.2),
});
