/**
 * The answer to an unknown verb: the command for what the user wants.
 *
 * Invariants:
 * - Words of other tools are looked up in a table. A word that only looks like one of our verbs may mean anything.
 * - A typing error is corrected only if exactly one verb comes close.
 */
import { LivesnapError } from '../errors.js';
import { ALIASES, VERBS } from './verbs.js';

/** What a user wants to do, and the command line for it. */
type Advice = readonly [purpose: string, command: string];

const START: Advice = ['start a machine', 'start --kernel FILE'];
const ATTACH: Advice = ['type into a running machine', 'console MACHINE'];
const SHOW_OUTPUT: Advice = ["see a guest's output", 'logs MACHINE'];
const LIST_MACHINES: Advice = ['list machines', 'ps'];
const LIST_SNAPSHOTS: Advice = ['list snapshots', 'ls'];
const PAUSE: Advice = ['pause a machine', 'pause MACHINE'];
const RESUME: Advice = ['resume a paused machine', 'resume MACHINE'];
const STOP: Advice = ['stop a machine', 'stop MACHINE'];
const KILL: Advice = ['end a machine at once', 'stop --force MACHINE'];
const SAVE: Advice = ['save a machine as a snapshot', 'save MACHINE --tag TAG'];
const RESTORE: Advice = ['restore a machine from a snapshot', 'restore SNAPSHOT'];
const CLONE: Advice = ['start a clone of a machine or a snapshot', 'fork MACHINE'];
const SHOW: Advice = ['show details of a snapshot', 'show SNAPSHOT'];
const COMPARE: Advice = ['compare two snapshots', 'diff SNAPSHOT OTHER'];
const REMOVE: Advice = ['remove a snapshot', 'rm SNAPSHOT'];
const FORGET: Advice = ['remove snapshots that a policy does not keep', 'forget --keep-daily 7'];
const RENAME: Advice = ['give a snapshot another name', 'tag SNAPSHOT TAG'];
const STATISTICS: Advice = ['see how much space the store takes', 'stats'];
const COLLECT: Advice = ['delete unreferenced data', 'gc'];
const CHECK: Advice = ['verify all data of the store', 'check --read-data'];
const REPAIR: Advice = ['repair a damaged store', 'repair'];
const COPY: Advice = ['copy a snapshot to another store', 'copy SNAPSHOT --to STORE'];
const FETCH: Advice = ['copy a snapshot from another store', 'copy SNAPSHOT --from STORE'];
const EXPORT: Advice = ['export a snapshot to a directory', 'export SNAPSHOT DIR'];
const IMPORT: Advice = ['import an exported directory', 'import DIR'];
const PUT: Advice = ['store a file', 'put FILE --tag TAG'];
const GET: Advice = ['write a stored file to a path', 'get SNAPSHOT FILE'];
const DISK: Advice = ['write a disk of a saved machine to a file', 'disk SNAPSHOT FILE'];
const DOCTOR: Advice = ['check this host and the installation', 'doctor'];
const VERSION: Advice = ['see the version', '--version'];
const WAIT: Advice = ["wait for a line of a guest's output", 'console MACHINE --until PATTERN'];
const NETWORK: Advice = ['start a machine with a network', 'start --kernel FILE --net user'];

/** Words of Docker, virsh, QEMU, Firecracker, restic, borg and git, in the order of our verbs. */
export const OTHER_WORDS: ReadonlyMap<string, readonly Advice[]> = new Map(
  (
    [
      ['run boot create launch new up define init', [START]],
      ['list dir', [LIST_MACHINES, LIST_SNAPSHOTS]],
      ['vms vm machines machine containers container domains top', [LIST_MACHINES]],
      ['exec shell ssh sh enter connect login', [ATTACH]],
      ['log output dmesg', [SHOW_OUTPUT]],
      ['suspend freeze hold', [PAUSE]],
      ['unpause unfreeze thaw cont continue', [RESUME]],
      ['down shutdown poweroff halt quit exit end', [STOP]],
      ['reboot restart reset', [STOP, START]],
      ['destroy terminate', [KILL]],
      [
        'snapshot backup checkpoint commit savevm managedsave hibernate snapshot-create snapshot-create-as',
        [SAVE],
      ],
      ['load loadvm revert rollback checkout switch snapshot-revert', [RESTORE]],
      ['clone branch', [CLONE]],
      ['migrate', [COPY, RESTORE]],
      ['snapshots images image archives history snapshot-list snapshot-info', [LIST_SNAPSHOTS]],
      ['info details describe dominfo dumpxml', [SHOW]],
      ['status domstate', [LIST_MACHINES]],
      ['compare cmp', [COMPARE]],
      ['undefine remove del erase rmi drop delvm snapshot-delete', [REMOVE]],
      ['expire retention thin', [FORGET]],
      ['rename label', [RENAME]],
      ['df du usage size', [STATISTICS]],
      ['prune compact vacuum clean cleanup purge system', [COLLECT]],
      ['verify fsck scrub test', [CHECK]],
      ['fix heal recover rebuild rebuild-index', [REPAIR]],
      ['cp push send upload sync mirror', [COPY]],
      ['pull fetch receive download', [FETCH]],
      ['pack', [EXPORT]],
      ['unpack', [IMPORT]],
      ['add store build', [PUT]],
      ['cat extract', [GET]],
      ['mount dump', [GET, DISK]],
      ['capabilities nodeinfo host', [DOCTOR]],
      ['version', [VERSION]],
      ['wait', [WAIT]],
      ['network net port', [NETWORK]],
    ] as const
  ).flatMap(([words, advice]) => words.split(' ').map((word) => [word, advice] as const)),
);

/** The number of letters to insert, delete or replace, or of neighbours to swap, that turn one word into the other. */
export function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1];
      let least = Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + (isSame ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, beforePrevious[j - 2]! + 1);
      row.push(least);
    }
    beforePrevious = previous;
    previous = row;
  }
  return previous[b.length]!;
}

/** Words of this length and more may have two errors. */
const LONG_WORD = 6;
/** No verb is nearly as long: such a word is no typing error. */
const MAX_WORD = 32;

/** The verb or alias that was mistyped. Null: none, or it could be several. */
function intendedVerb(word: string): string | null {
  if (word.length > MAX_WORD) return null;
  const names = [...VERBS].flatMap(([name, { isHidden }]) => (isHidden ? [] : [name]));
  const most = word.length >= LONG_WORD ? 2 : 1;
  const near = [...names, ...ALIASES.keys()].filter((name) => editDistance(word, name) <= most);
  return near.length === 1 ? near[0]! : null;
}

function hintFor(word: string): string {
  const advice = OTHER_WORDS.get(word);
  if (advice !== undefined)
    return `To ${advice.map(([purpose, command]) => `${purpose}: livesnap ${command}`).join('. To ')}`;
  const intended = intendedVerb(word);
  return intended === null ? 'livesnap --help lists the verbs.' : `Did you mean: livesnap ${intended}`;
}

/** The error for a word in the place of a verb. */
export const unknownVerb = (word: string): LivesnapError =>
  new LivesnapError('USAGE', `unknown verb '${word}'`, { hint: hintFor(word) });
