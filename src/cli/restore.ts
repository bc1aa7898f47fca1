import { resolve } from 'node:path';
import { LivesnapError } from '../errors.js';
import { launchMachine } from './launch-machine.js';
import { locateSnapshot } from './locate-snapshot.js';
import { parseConnection } from './net-option.js';
import { withStore } from './store-access.js';
import { parsePattern, parsePort, parseText, parseWord, STARTER_PROMPT_HELP } from './values.js';
import { defineVerb, flag, hidden, repeated, valued } from './verb.js';

export const verb = defineVerb({
  name: 'restore',
  operands: ['[snapshot]'],
  usage: '[options] <snapshot>',
  options: {
    name: valued(
      '--name <name>',
      'Machine name (default: the saved name, or NAME-2, NAME-3, … if taken)',
      parseText,
    ),
    net: repeated(
      '--net <network>',
      'Connect a network: N:user, N:tap=TAP or N:none; may be repeated',
      parseConnection,
    ),
    asNew: flag('--as-new', 'Restore a clone, to run beside the original'),
    overlayDir: valued(
      '--overlay-dir <dir>',
      'Directory for writes to disks (default: the store)',
      parseText,
    ),
    port: valued('--port <port>', 'Also serve the API on 127.0.0.1:PORT', parsePort),
    clock: valued(
      '--clock <host|saved>',
      'Guest clocks: with the time since the save (default: host), or as saved',
      parseWord('host', 'saved'),
    ),
    lazy: flag('--lazy', 'Run at once and read RAM from the store meanwhile (default)'),
    eager: flag('--eager', 'Read all of RAM before the machine runs'),
    detach: flag('--detach', 'Run in the background and print the name'),
    starterPrompt: valued('--starter-prompt <pattern>', STARTER_PROMPT_HELP, parsePattern),
    cpuPath: hidden(valued('--cpu_path <snapshot>', 'Legacy form of the snapshot', parseText)),
    memoryPath: hidden(valued('--memory_path <snapshot>', 'Legacy form of the snapshot', parseText)),
  },
  notes: [
    'SNAPSHOT is a tag, an ID, a unique prefix of an ID, or an exported directory.',
    'A network that --net does not connect has no link. Parts of --net: as for start.',
    'A clone keeps its MAC addresses, so each of its networks needs user, netns=NAME',
    'or none. It gets a new name.',
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
    if (options.lazy && options.eager)
      throw new LivesnapError('USAGE', '--lazy and --eager exclude each other', {
        hint: 'Give one of them.',
      });
    const { dir, ref } = await locateSnapshot(storeDir, reference);
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
      like: options.asNew ? null : saved.vm,
      detach: options.detach,
      port: options.port ?? null,
      storeDir,
      overlayDir: options.overlayDir === undefined ? null : resolve(options.overlayDir),
      starter: { lines: [], prompt: options.starterPrompt?.source ?? null },
      origin: {
        kind: 'restore',
        from: dir,
        snapshot: saved.id,
        clock: options.clock ?? 'host',
        nets: options.net,
        asNew: options.asNew,
        fill: options.eager ? 'eager' : options.lazy ? 'lazy' : 'auto',
      },
      output,
    });
  },
});
