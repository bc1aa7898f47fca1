import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { LivesnapError } from '../errors.js';
import { formatCount } from './format.js';
import { launchMachine } from './launch-machine.js';
import { withStore } from './store-access.js';
import { parsePort, parseText } from './values.js';
import { defineVerb, flag, hidden, valued } from './verb.js';

export const verb = defineVerb({
  name: 'restore',
  summary: 'Restore a machine from a snapshot',
  operands: ['[snapshot]'],
  usage: '[options] <snapshot>',
  options: {
    name: valued(
      '--name <name>',
      'Machine name (default: the saved name, or NAME-2, NAME-3, … if taken)',
      parseText,
    ),
    overlayDir: valued(
      '--overlay-dir <dir>',
      'Directory for writes to disks (default: the store)',
      parseText,
    ),
    port: valued('--port <port>', 'Also serve the API on 127.0.0.1:PORT', parsePort),
    detach: flag('--detach', 'Run in the background and print the name'),
    cpuPath: hidden(valued('--cpu_path <snapshot>', 'Legacy form of the snapshot', parseText)),
    memoryPath: hidden(valued('--memory_path <snapshot>', 'Legacy form of the snapshot', parseText)),
  },
  notes: [
    'SNAPSHOT is a tag, an ID, a unique prefix of an ID, or an exported directory.',
    'In a terminal, Ctrl-A x detaches from the console; the machine keeps running.',
  ].join('\n'),
  async run({ operands, options, output, storeDir }) {
    const given = new Set(
      [...operands, options.cpuPath, options.memoryPath].filter((ref) => ref !== undefined),
    );
    const [reference] = given;
    if (reference === undefined)
      throw new LivesnapError('USAGE', 'restore needs a snapshot', {
        hint: 'livesnap ls lists the snapshots.',
      });
    if (given.size > 1)
      throw new LivesnapError('USAGE', `${[...given].join(' and ')} are different snapshots`, {
        hint: 'A snapshot holds vCPUs and memory. Name one snapshot.',
      });
    const { dir, ref } = await locate(storeDir, reference);
    const saved = await withStore(dir, { write: false }, (store) => store.find(ref));
    if (saved.kind === 'file')
      throw new LivesnapError('USAGE', `snapshot ${reference} holds a file, not a machine`, {
        hint: `To write the file: livesnap get ${reference} FILE`,
      });
    if (saved.kind === 'disk')
      throw new LivesnapError('USAGE', `snapshot ${reference} holds disks, not a machine`, {
        hint: `To start a machine with a disk of it: livesnap start --block snapshot=${reference}:disk0`,
      });
    return launchMachine({
      name: options.name ?? null,
      like: saved.vm,
      detach: options.detach,
      port: options.port ?? null,
      storeDir,
      overlayDir: options.overlayDir === undefined ? null : resolve(options.overlayDir),
      origin: { kind: 'restore', from: dir, snapshot: saved.id },
      output,
    });
  },
});

/** Finds a snapshot in the store, or in an exported directory that holds only this one. */
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
    throw new LivesnapError('USAGE', `${dir} holds ${formatCount(ids.length, 'snapshot')}, not 1`, {
      hint: 'To choose one: livesnap restore SNAPSHOT --store DIR',
    });
  return { dir, ref: ids[0]! };
}
