/**
 * The answer to an option of another tool: what to write instead.
 *
 * Invariant: every word here is unknown to its verb. An option of ours is never looked up.
 */

const STORE = 'To use another store: --store DIR.';
const JSON_OUTPUT = 'To print JSON: --json.';
const DRY_RUN = 'To change nothing: --dry-run.';
const NO_QUESTION = 'It asks nothing before it removes: leave the option out.';
const ATTACHES = 'It attaches to the console unless you give --detach: leave the option out.';
const FORWARD = 'To forward port 8080 of the host to port 80: --net user,forward=8080:80.';
const DISK = 'To give it a disk: --block path=FILE. To give it a copy of a directory: --share DIR.';
const MEMORY = 'Example: --memory 512M.';
const CMDLINE = "To set the kernel's command line: --cmdline TEXT.";

/** By verb and options, `*` for every verb. */
const ADVICE: readonly (readonly [verbs: string, options: string, advice: string])[] = [
  ['*', '-r --repo --repository', STORE],
  ['*', '--format -o --output', JSON_OUTPUT],
  ['*', '-n', DRY_RUN],
  ['ps', '-a --all', 'It lists all machines: leave the option out.'],
  ['ls', '-a --all -l', 'It lists all snapshots: leave the option out.'],
  ['*', '--api-sock --config-file --no-api', 'To start a machine: livesnap start --kernel FILE.'],
  ['stop', '-t --time', 'To give the guest 30 seconds: --timeout 30.'],
  ['restore', '--memory --cpus --block --initrd --cmdline', 'The snapshot has it: leave the option out.'],
  ['stop pause resume', '-a --all', 'To name all machines: $(livesnap ps -q).'],
  ['rm', '-f --force', NO_QUESTION],
  ['rm', '-a --all', "To remove all snapshots that have tags: livesnap rm '*'."],
  ['start restore', '-i -it --interactive --tty', ATTACHES],
  ['start', '-p --publish', FORWARD],
  ['start', '-v --volume --mount --disk --drive -drive -hda', DISK],
  ['start', '-m --ram', MEMORY],
  ['start', '-append --append -a --boot-args', CMDLINE],
  ['start', '--network --nic -netdev', 'To connect it: --net user.'],
  ['restore', '--target -t', 'To write a stored file or a disk to a path: livesnap get, livesnap disk.'],
  ['check', '--read-data-subset', 'To verify a tenth of the data: --read-data=1/10.'],
  ['ls forget', '--host --hostname -H', "To choose by machine: --filter 'name=PATTERN'."],
  ['ls', '--tag', "To choose by tag: --filter 'tag=PATTERN'."],
  ['ls', '--last --latest', 'For the newest 3 snapshots: --reverse --limit 3.'],
  ['import', '--to', STORE],
  ['check', '--fix --repair', 'To repair the store: livesnap repair.'],
  ['check', '--verify-data', 'To verify all data: --read-data.'],
  ['forget', '--tag', "To consider only some snapshots, name them, or give --filter 'tag=PATTERN'."],
];

/** What to write in place of an option that a verb does not have. `given` may have a value: `--tag=a`. Null: unknown. */
export function adviceFor(verb: string, given: string): string | null {
  const [option = ''] = given.split('=');
  const found = ADVICE.find(
    ([verbs, options]) =>
      (verbs === '*' || verbs.split(' ').includes(verb)) && options.split(' ').includes(option),
  );
  return found?.[2] ?? null;
}

/** All pairs of a verb and an option that have an answer, `*` for every verb. */
export const answeredOptions = (): readonly (readonly [verb: string, option: string])[] =>
  ADVICE.flatMap(([verbs, options]) =>
    verbs.split(' ').flatMap((verb) => options.split(' ').map((option) => [verb, option] as const)),
  );
