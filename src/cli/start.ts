import { configFile, readConfig } from '../config.js';
import { LivesnapError } from '../errors.js';
import { type DiskOptions, readableFile } from '../host/machine-options.js';
import { parseStarterSet, readStarterFile } from '../host/starter-file.js';
import { parseLabel } from '../labels.js';
import { bundledGuest } from '../native/project-root.js';
import { CPU_TEMPLATES } from '../vmm/machine-types.js';
import { parseBlock } from './block-option.js';
import { parseNet } from './net-option.js';
import { runMachine } from './run-machine.js';
import { givenOr, orNone, startDefaults } from './start-defaults.js';
import {
  anyText,
  parseCpus,
  parseDuration,
  parseKernel,
  parseMemory,
  parsePattern,
  parsePort,
  parseText,
  parseVcpu,
  parseWord,
  STARTER_PROMPT_HELP,
} from './values.js';
import { defineVerb, flag, hidden, repeated, valued } from './verb.js';

/** A disk with what is at a path of the host. */
const sharedDisk = (path: string): DiskOptions => ({ source: { kind: 'share', path } });

export const verb = defineVerb({
  name: 'start',
  operands: [],
  usage: '--kernel <file> [options]',
  options: {
    kernel: valued('--kernel <file>', 'Kernel: a bzImage or an ELF vmlinux', parseKernel),
    initrd: valued('--initrd <file>', 'Initial RAM disk', parseText),
    cmdline: valued(
      '--cmdline <text>',
      'Kernel command line (default: console=ttyS0 reboot=t panic=-1)',
      anyText,
    ),
    memory: valued('--memory <size>', 'Memory (default: 256M)', parseMemory),
    cpus: valued('--cpus <number>', 'Number of vCPUs (default: 1)', parseCpus),
    vcpu: hidden(valued('--vcpu <list>', 'Legacy form of --cpus: num=N', parseVcpu)),
    block: repeated(
      '--block <disk>',
      'Disk: path=FILE, snapshot=SNAPSHOT or none; may be repeated',
      orNone(parseBlock),
    ),
    share: repeated(
      '--share <path>',
      'Read-only disk with a copy of a directory or a file; may be repeated',
      parseText,
    ),
    net: repeated('--net <network>', 'Network: user, tap=TAP or none; may be repeated', orNone(parseNet)),
    overlayDir: valued(
      '--overlay-dir <dir>',
      'Directory for overlays of disks (default: the store)',
      parseText,
    ),
    cpuTemplate: valued(
      '--cpu-template <name>',
      'Fewer CPU features: minimal, x86-64-v2 or x86-64-v3',
      parseWord(...CPU_TEMPLATES),
    ),
    balloon: flag('--balloon', 'Give memory that the guest frees back to the host'),
    name: valued('--name <name>', 'Machine name (default: random)', parseText),
    label: repeated(
      '--label <key=value>',
      'Label of the machine and its snapshots; may be repeated',
      parseLabel,
    ),
    lifetime: valued(
      '--lifetime <time>',
      'Stop the machine after this time: 90s, 10m, 8h, 7d',
      parseDuration,
    ),
    port: valued('--port <port>', 'Also serve the API on 127.0.0.1:PORT', parsePort),
    starterFile: valued(
      '--starter-file <file>',
      'Type the lines of FILE at the prompts of the guest',
      parseText,
    ),
    starterPrompt: valued('--starter-prompt <pattern>', STARTER_PROMPT_HELP, parsePattern),
    starterSet: repeated(
      '--starter-set <key=value>',
      'Value of {{key}} in the starter file',
      parseStarterSet,
    ),
    detach: flag('-d, --detach', 'Run in the background and print the name'),
  },
  notes: [
    'In a terminal, Ctrl-A x detaches from the console; the machine keeps running.',
    'DISK is one of:',
    '  path=FILE            a raw image or a block device; the guest writes to it',
    '  path=FILE,ro         the same, read-only',
    '  path=FILE,cow        FILE stays unchanged; writes end with the machine',
    '  snapshot=SNAPSHOT    an image from put, or the disk of a saved machine; writes',
    '                       are saved with the tag NAME-disk when the machine ends',
    'snapshot=SNAPSHOT:REGION names one of several disks. Add ,ro or ,cow as above.',
    'With ,on-error=report the guest gets an I/O error if the host fails. Otherwise',
    'the machine is paused.',
    'NETWORK is one of:',
    '  user                 needs no root; ,forward=HOST:GUEST forwards a TCP port',
    '  tap=TAP              an interface of the host; ,netns=NAME is its namespace',
    '  tap=TAP,create       makes it; ,ip=ADDRESS/PREFIX is the address of the host',
    'With ,mac=ADDRESS the guest has this MAC address.',
    'The config file may have other defaults: store, memory, cpus, block and net.',
    'none stands for no disk or no network, whatever the config file has.',
    'Requests to PORT need the token in ~/.local/state/livesnap/token.',
    'With --json and without --detach, start does not attach. It prints the result',
    'and waits until the machine ends.',
  ].join('\n'),
  async run({ options, output, storeDir }) {
    const { kernel } = options;
    if (kernel === undefined)
      throw new LivesnapError('USAGE', 'start needs a kernel', {
        hint: `Add --kernel FILE. The bundled guest: --kernel ${bundledGuest}`,
      });
    if (options.cpus !== undefined && options.vcpu !== undefined)
      throw new LivesnapError('USAGE', '--cpus and --vcpu both give the number of vCPUs', {
        hint: 'Use only --cpus.',
      });
    if (options.cmdline !== undefined && kernel.cmdline !== null)
      throw new LivesnapError('USAGE', 'the kernel command line is given twice', {
        hint: 'Use either --cmdline or cmdline= in --kernel.',
      });
    if (options.starterFile !== undefined && kernel.starterFile !== null)
      throw new LivesnapError('USAGE', 'the starter file is given twice', {
        hint: 'Use either --starter-file or starter_file= in --kernel.',
      });
    const starterFile = options.starterFile ?? kernel.starterFile;
    if (starterFile === null && (options.starterSet.length > 0 || options.starterPrompt !== undefined))
      throw new LivesnapError('USAGE', '--starter-set and --starter-prompt need a starter file', {
        hint: 'Add --starter-file FILE.',
      });
    const starter = {
      lines:
        starterFile === null
          ? []
          : readStarterFile(readableFile(starterFile, 'starter file'), new Map(options.starterSet)),
      prompt: options.starterPrompt?.source ?? null,
    };
    const file = configFile();
    const defaults = startDefaults(file, readConfig(file));
    for (const sentence of kernel.ignored) output.note(sentence);
    return runMachine(
      { output, storeDir, shown: options.share.length > 0 ? 'copying shares' : null, detach: options.detach },
      (host, progress) =>
        host.start({
          kernel: kernel.path,
          initrd: options.initrd,
          cmdline: options.cmdline ?? kernel.cmdline ?? undefined,
          memoryBytes: options.memory ?? defaults.memoryBytes,
          cpus: options.cpus ?? options.vcpu ?? defaults.cpus,
          balloon: options.balloon,
          cpuTemplate: options.cpuTemplate,
          disks: [
            ...givenOr<DiskOptions>('--block', options.block, defaults.disks),
            ...options.share.map(sharedDisk),
          ],
          nets: givenOr('--net', options.net, defaults.nets),
          name: options.name,
          labels: Object.fromEntries(options.label),
          lifetimeMs: options.lifetime,
          port: options.port,
          overlayDir: options.overlayDir,
          starter,
          onProgress: progress,
        }),
    );
  },
});
