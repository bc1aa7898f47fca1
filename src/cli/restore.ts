import { LivesnapError } from '../errors.js';
import { launchMachine } from './launch-machine.js';
import { withStore } from './store-access.js';
import { parsePort, parseText } from './values.js';
import { defineVerb, flag, hidden, valued } from './verb.js';

export const verb = defineVerb({
  name: 'restore',
  summary: 'have a saved machine go on, in a new process',
  operands: ['[snapshot]'],
  options: {
    name: valued('--name <name>', "its name (default: the saved machine's, or one like it)", parseText),
    eager: flag('--eager', 'fill its memory before it runs (the default)'),
    port: valued('--port <port>', 'have its control API on this port of 127.0.0.1, too', parsePort),
    detach: flag('--detach', 'print its name and leave it in the background'),
    cpuPath: hidden(valued('--cpu_path <snapshot>', "the original's way to name a snapshot", parseText)),
    memoryPath: hidden(
      valued('--memory_path <snapshot>', "the original's way to name a snapshot", parseText),
    ),
  },
  notes: [
    'SNAPSHOT is a tag, else an id, else the beginning of just one id.',
    'The spelling of the original is taken, too: --cpu_path SNAPSHOT --memory_path SNAPSHOT.',
  ].join('\n'),
  async run({ operands, options, output, storeDir }) {
    const given = new Set(
      [...operands, options.cpuPath, options.memoryPath].filter((ref) => ref !== undefined),
    );
    const [reference] = given;
    if (reference === undefined)
      throw new LivesnapError('USAGE', 'restore needs a snapshot', { hint: 'See livesnap ls.' });
    if (given.size > 1)
      throw new LivesnapError('USAGE', `${[...given].join(' and ')} are different snapshots`, {
        hint: 'A snapshot holds vCPUs and memory: name the same one for both.',
      });
    const saved = await withStore(storeDir, { write: false }, (store) => store.show(reference));
    if (saved.kind !== 'machine')
      throw new LivesnapError('USAGE', `${reference} is a file, not a machine`, {
        hint: `Write it out with: livesnap get ${reference} FILE.`,
      });
    return launchMachine({
      name: options.name ?? null,
      like: saved.vm,
      detach: options.detach,
      port: options.port ?? null,
      storeDir,
      origin: { kind: 'restore', snapshot: saved.id },
      output,
    });
  },
});
