import { statSync } from 'node:fs';
import { resolve } from 'node:path';
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
    port: valued('--port <port>', 'have its control API on this port of 127.0.0.1, too', parsePort),
    detach: flag('--detach', 'print its name and leave it in the background'),
    cpuPath: hidden(valued('--cpu_path <snapshot>', "the original's way to name a snapshot", parseText)),
    memoryPath: hidden(
      valued('--memory_path <snapshot>', "the original's way to name a snapshot", parseText),
    ),
  },
  notes: [
    'SNAPSHOT is a tag, else an id, else the beginning of just one id, else a directory that livesnap export made.',
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
    const { dir, ref } = await locate(storeDir, reference);
    const saved = await withStore(dir, { write: false }, (store) => store.find(ref));
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
      origin: { kind: 'restore', from: dir, snapshot: saved.id },
      output,
    });
  },
});

/** Where a snapshot is: in the store, or all by itself in a directory that was exported. */
async function locate(storeDir: string, reference: string): Promise<{ dir: string; ref: string }> {
  try {
    await withStore(storeDir, { write: false }, (store) => store.resolve(reference));
    return { dir: storeDir, ref: reference };
  } catch (error) {
    const isMissing =
      error instanceof LivesnapError && (error.code === 'NO_SUCH_SNAPSHOT' || error.code === 'NO_SUCH_FILE');
    if (!isMissing || !statSync(reference, { throwIfNoEntry: false })?.isDirectory()) throw error;
  }
  const dir = resolve(reference);
  const { exportedSnapshots } = await import('../store/remote/export.js');
  const ids = exportedSnapshots(dir);
  if (ids.length !== 1)
    throw new LivesnapError('USAGE', `${dir} holds ${ids.length} snapshots, not one`, {
      hint: 'Name one of them: livesnap restore SNAPSHOT --store DIR.',
    });
  return { dir, ref: ids[0]! };
}
