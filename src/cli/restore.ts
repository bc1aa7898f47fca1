import { LivesnapError } from '../errors.js';
import { errorOfTwoFiles, snapshotNamed } from '../host/two-file-snapshot.js';
import { parseLabel } from '../labels.js';
import { parseConnection } from './net-option.js';
import { runMachine } from './run-machine.js';
import {
  parseDuration,
  parseKernel,
  parsePattern,
  parsePort,
  parseText,
  parseWord,
  STARTER_PROMPT_HELP,
} from './values.js';
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
    label: repeated(
      '--label <key=value>',
      'Label of the machine (default: those of the snapshot); may be repeated',
      parseLabel,
    ),
    lifetime: valued(
      '--lifetime <time>',
      'Stop the machine after this time: 90s, 10m, 8h, 7d',
      parseDuration,
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
    detach: flag('-d, --detach', 'Run in the background and print the name'),
    starterPrompt: valued('--starter-prompt <pattern>', STARTER_PROMPT_HELP, parsePattern),
    kernel: hidden(valued('--kernel <file>', 'Legacy option without effect', parseKernel)),
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
    const { cpuPath, memoryPath } = options;
    const legacy =
      cpuPath === undefined || memoryPath === undefined || cpuPath === memoryPath
        ? (cpuPath ?? memoryPath)
        : snapshotNamed(cpuPath, memoryPath);
    const given = new Set([...operands, legacy].filter((ref) => ref !== undefined));
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
    if (options.kernel !== undefined)
      output.note('--kernel has no effect on a restore: the kernel is in the memory of the snapshot');
    return runMachine(
      { output, storeDir, shown: `restoring ${reference}`, detach: options.detach },
      (host, progress) =>
        host
          .restore(reference, {
            name: options.name,
            ...(options.label.length === 0 ? {} : { labels: Object.fromEntries(options.label) }),
            lifetimeMs: options.lifetime,
            port: options.port,
            overlayDir: options.overlayDir,
            starter: { lines: [], prompt: options.starterPrompt?.source ?? null },
            clock: options.clock,
            nets: options.net,
            asNew: options.asNew,
            fill: options.eager ? 'eager' : options.lazy ? 'lazy' : 'auto',
            onProgress: progress,
          })
          .catch((error) => {
            throw cpuPath === undefined || memoryPath === undefined
              ? error
              : errorOfTwoFiles(error, cpuPath, memoryPath);
          }),
    );
  },
});
