import { runRoot } from '../environment.js';
import { LivesnapError } from '../errors.js';
import { kindOf, typeOption } from './machine-or-snapshot.js';
import { TerminalText } from './terminal-text.js';
import { parseLines } from './values.js';
import { defineVerb, flag, valued } from './verb.js';

export const verb = defineVerb({
  name: 'logs',
  operands: ['<machine|snapshot>'],
  options: {
    follow: flag('-f, --follow', 'Print new output until the machine ends'),
    tail: valued('-n, --tail <lines>', 'Print only the last lines of past output', parseLines),
    vmm: flag('--vmm', "Print the log of the machine's process"),
    type: typeOption('Whose console, if both have the name'),
  },
  notes: [
    "Prints what a guest has written to its console: a machine's last MiB, or the",
    'last 64 KiB before a snapshot was made. On a terminal, escape sequences are left',
    'out.',
  ].join('\n'),
  async run({ operands, options, output, storeDir }) {
    const [ref] = operands as [string];
    if (options.follow && output.json)
      throw new LivesnapError('USAGE', '--follow and --json exclude each other', {
        hint: 'With --json, the output so far is printed as one value.',
      });
    if (options.vmm && (options.follow || options.type === 'snapshot'))
      throw new LivesnapError('USAGE', '--vmm is for the log of a machine, which --follow does not follow', {
        hint: 'Leave out --follow and --type.',
      });
    const { Host } = await import('../host/host.js');
    const logs = await import('../host/logs.js');
    const host = new Host(storeDir);
    const kind = options.vmm ? 'machine' : await kindOf(host, ref, options.type);
    const print = async (past: Uint8Array): Promise<void> => {
      const text = Buffer.from(logs.lastLines(past, options.tail ?? null));
      if (output.json) output.result({ name: ref, type: kind, output: text.toString() }, () => '');
      else await write(text);
    };
    if (kind === 'snapshot') {
      const { locateSnapshot } = await import('../host/locate-snapshot.js');
      const { dir, ref: found } = await locateSnapshot(storeDir, ref);
      if (options.follow)
        throw new LivesnapError('USAGE', `${ref} is a snapshot, and has no new output`, {
          hint: 'Leave out --follow.',
        });
      await print(await logs.consoleInSnapshot(dir, found));
      return 0;
    }
    const { RunDirectory } = await import('../machine/run-directory.js');
    const { findRunDirectory } = await import('../host/find-machine.js');
    const directory = (await findRunDirectory(ref)) ?? new RunDirectory(runRoot(), ref);
    if (options.vmm) {
      await print(await logs.processLogOf(directory));
      return 0;
    }
    const console = await logs.consoleOf(directory);
    try {
      await print(console.past);
      if (options.follow) for await (const bytes of console.rest) await write(bytes);
    } finally {
      console.close();
      await write(null);
    }
    return 0;
  },
});

const text = new TerminalText();

/**
 * Writes output of a guest as it is, or what a terminal may show of it. Null: it ends. Resolves when the reader has taken
 * what was written before, so that memory does not grow.
 */
async function write(bytes: Uint8Array | null): Promise<void> {
  const shown = process.stdout.isTTY ? (bytes === null ? text.end() : text.next(bytes)) : bytes;
  if (shown === null || process.stdout.write(shown)) return;
  await new Promise((resolve) => {
    process.stdout.once('drain', resolve).once('close', resolve);
  });
}
