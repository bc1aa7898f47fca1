import { accessSync, constants, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { LivesnapError } from '../errors.js';
import { launchMachine } from './launch-machine.js';
import { parseCpus, parseKernel, parseMemory, parsePort, parseText, parseVcpu } from './values.js';
import { defineVerb, flag, hidden, valued } from './verb.js';

const DEFAULT_MEMORY_BYTES = 256 * 2 ** 20;

/** The absolute path of a file that can be read. Errors: NO_SUCH_FILE, BAD_IMAGE, SYSTEM. */
export function readableFile(path: string, what: string): string {
  const absolute = resolve(path);
  try {
    if (!statSync(absolute).isFile())
      throw new LivesnapError('BAD_IMAGE', `${what} ${path} is not a file`, { hint: 'Give a file.' });
    accessSync(absolute, constants.R_OK);
  } catch (error) {
    if (error instanceof LivesnapError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new LivesnapError('NO_SUCH_FILE', `there is no ${what} ${path}`, { hint: 'Check the path.' });
    throw new LivesnapError('SYSTEM', `${what} ${path} cannot be read: ${message}`);
  }
  return absolute;
}

export const verb = defineVerb({
  name: 'start',
  summary: 'boot a machine and join its console',
  operands: [],
  options: {
    kernel: valued('--kernel <file>', 'a bzImage or an ELF vmlinux', parseKernel),
    initrd: valued('--initrd <file>', 'an initial RAM disk', parseText),
    cmdline: valued('--cmdline <text>', "the kernel's command line", (text) => text),
    memory: valued('--memory <size>', 'its memory (default: 256M)', parseMemory),
    cpus: valued('--cpus <number>', 'its vCPUs (default: 1)', parseCpus),
    vcpu: hidden(valued('--vcpu <list>', "the original's --cpus: num=N", parseVcpu)),
    name: valued('--name <name>', 'its name (default: one is drawn)', parseText),
    port: valued('--port <port>', 'have its control API on this port of 127.0.0.1, too', parsePort),
    detach: flag('--detach', 'print its name and leave it in the background'),
  },
  notes: [
    'In a terminal Ctrl-A x leaves the console; the machine goes on. With --json the console is not joined.',
    'The spellings of the original are taken, too: --kernel path=F,cmdline=S --memory size_mib=N --vcpu num=N.',
  ].join('\n'),
  async run({ options, output, storeDir }) {
    const { kernel } = options;
    if (kernel === undefined)
      throw new LivesnapError('USAGE', 'start needs a kernel', {
        hint: 'Give --kernel FILE, such as --kernel guest/build/probe.bzImage.',
      });
    if (options.cpus !== undefined && options.vcpu !== undefined)
      throw new LivesnapError('USAGE', '--cpus and --vcpu are two spellings of one option', {
        hint: 'Give one of them.',
      });
    if (options.cmdline !== undefined && kernel.cmdline !== null)
      throw new LivesnapError('USAGE', 'the command line is given twice: by --cmdline and in --kernel');
    const cpus = options.cpus ?? options.vcpu ?? 1;
    const config = {
      kernel: readableFile(kernel.path, 'kernel'),
      initrd: options.initrd === undefined ? null : readableFile(options.initrd, 'initrd'),
      cmdline: options.cmdline ?? kernel.cmdline,
      memoryBytes: options.memory ?? DEFAULT_MEMORY_BYTES,
      cpus,
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
