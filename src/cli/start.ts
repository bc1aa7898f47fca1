import { accessSync, constants, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { LivesnapError } from '../errors.js';
import { CPU_TEMPLATES } from '../vmm/machine-types.js';
import { launchMachine } from './launch-machine.js';
import {
  anyText,
  parseCpus,
  parseKernel,
  parseMemory,
  parsePort,
  parseText,
  parseVcpu,
  parseWord,
} from './values.js';
import { defineVerb, flag, hidden, valued } from './verb.js';

const DEFAULT_MEMORY_BYTES = 256 * 2 ** 20;

/** The absolute path of a readable file. Errors: NO_SUCH_FILE, BAD_IMAGE, NO_PERMISSION, SYSTEM. */
function readableFile(path: string, role: string): string {
  const absolute = resolve(path);
  try {
    const stats = statSync(absolute);
    if (!stats.isFile())
      throw new LivesnapError(
        'BAD_IMAGE',
        `${role} ${path} is ${stats.isDirectory() ? 'a directory' : 'not a regular file'}`,
        { hint: 'Specify a regular file.' },
      );
    accessSync(absolute, constants.R_OK);
  } catch (error) {
    if (error instanceof LivesnapError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new LivesnapError('NO_SUCH_FILE', `${role} ${path} does not exist`, { hint: 'Check the path.' });
    const isForbidden = code === 'EACCES' || code === 'EPERM';
    throw new LivesnapError(
      isForbidden ? 'NO_PERMISSION' : 'SYSTEM',
      `${role} ${path} cannot be read: ${message}`,
      { hint: 'Check the permissions of the file and of the directories above it.' },
    );
  }
  return absolute;
}

export const verb = defineVerb({
  name: 'start',
  summary: 'Boot a machine and attach to its console',
  operands: [],
  usage: '--kernel <file> [options]',
  options: {
    kernel: valued('--kernel <file>', 'Kernel: a bzImage or an ELF vmlinux', parseKernel),
    initrd: valued('--initrd <file>', 'Initial RAM disk', parseText),
    cmdline: valued('--cmdline <text>', 'Kernel command line', anyText),
    memory: valued('--memory <size>', 'Memory (default: 256M)', parseMemory),
    cpus: valued('--cpus <number>', 'Number of vCPUs (default: 1)', parseCpus),
    vcpu: hidden(valued('--vcpu <list>', 'Legacy form of --cpus: num=N', parseVcpu)),
    cpuTemplate: valued(
      '--cpu-template <name>',
      'Fewer CPU features: minimal, x86-64-v2 or x86-64-v3',
      parseWord(...CPU_TEMPLATES),
    ),
    name: valued('--name <name>', 'Machine name (default: random)', parseText),
    port: valued('--port <port>', 'Also serve the API on 127.0.0.1:PORT', parsePort),
    detach: flag('--detach', 'Run in the background and print the name'),
  },
  notes: [
    'In a terminal, Ctrl-A x detaches from the console; the machine keeps running.',
    'With --json and without --detach, start does not attach. It prints the result',
    'and waits until the machine ends.',
  ].join('\n'),
  async run({ options, output, storeDir }) {
    const { kernel } = options;
    if (kernel === undefined)
      throw new LivesnapError('USAGE', 'start needs a kernel', {
        hint: 'Add --kernel FILE, for example --kernel guest/build/probe.bzImage.',
      });
    if (options.cpus !== undefined && options.vcpu !== undefined)
      throw new LivesnapError('USAGE', '--cpus and --vcpu both give the number of vCPUs', {
        hint: 'Use only --cpus.',
      });
    if (options.cmdline !== undefined && kernel.cmdline !== null)
      throw new LivesnapError('USAGE', 'the kernel command line is given twice', {
        hint: 'Use either --cmdline or cmdline= in --kernel.',
      });
    const cpus = options.cpus ?? options.vcpu ?? 1;
    const config = {
      kernel: readableFile(kernel.path, 'kernel'),
      initrd: options.initrd === undefined ? null : readableFile(options.initrd, 'initrd'),
      cmdline: options.cmdline ?? kernel.cmdline,
      memoryBytes: options.memory ?? DEFAULT_MEMORY_BYTES,
      cpus,
      ...(options.cpuTemplate === undefined ? {} : { cpuTemplate: options.cpuTemplate }),
    };
    for (const sentence of kernel.ignored) output.say(`note: ${sentence}`);
    return launchMachine({
      name: options.name ?? null,
      like: null,
      detach: options.detach,
      port: options.port ?? null,
      storeDir,
      origin: { kind: 'start', config },
      output,
    });
  },
});
