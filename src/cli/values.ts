/**
 * The values of options: sizes, counts, times, patterns, and the original's `key=value` lists. All errors are
 * USAGE, name the option and say what it takes.
 */
import { totalmem } from 'node:os';
import { LivesnapError } from '../errors.js';
import { PAGE_BYTES } from '../page-stream.js';

const usage = (message: string, hint?: string): LivesnapError =>
  new LivesnapError('USAGE', message, hint === undefined ? {} : { hint });

const UNIT_BYTES: Record<string, number> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** `256M`, `1.5G`, `4096`, `64KiB`: bytes, units are powers of 1024. */
export function parseSize(text: string): number {
  const found = /^(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?)(?:i?B)?$/i.exec(text);
  const bytes = found === null ? Number.NaN : Number(found[1]) * UNIT_BYTES[found[2]!.toUpperCase()]!;
  if (!Number.isSafeInteger(bytes))
    throw usage(`${JSON.stringify(text)} is not a size`, 'A size is such as 256M or 1G.');
  return bytes;
}

/** Guest memory: whole pages, more than none and no more than the host has. */
export function checkMemory(bytes: number, hostBytes: number = totalmem()): number {
  if (bytes === 0) throw usage('a machine needs memory, 0 is none', 'Try --memory 256M.');
  if (bytes % PAGE_BYTES !== 0) throw usage(`a memory of ${bytes} bytes is not a multiple of ${PAGE_BYTES}`);
  if (bytes > hostBytes)
    throw usage(
      `a memory of ${mebibytes(bytes)} is more than this host has (${mebibytes(hostBytes)})`,
      'Give the machine less --memory.',
    );
  return bytes;
}

const mebibytes = (bytes: number): string => `${Math.floor(bytes / 2 ** 20)} MiB`;

export const parseMemory = (text: string): number =>
  checkMemory(text.startsWith('size_mib=') ? sizeMib(text) : parseSize(text));

function sizeMib(text: string): number {
  const { size_mib } = parseList('--memory', text, ['size_mib']);
  if (!/^\d{1,9}$/.test(size_mib ?? '')) throw usage(`--memory ${text} does not say how many MiB`);
  return Number(size_mib) * 2 ** 20;
}

/** A number of vCPUs; how many the host allows is checked where it is known. */
export function parseCpus(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw usage(`${JSON.stringify(text)} is not a number of vCPUs`, 'Give 1 or more.');
  return Number(text);
}

export function parseVcpu(text: string): number {
  return parseCpus(parseList('--vcpu', text, ['num']).num ?? '');
}

export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65_535) throw usage(`${JSON.stringify(text)} is not a port`, 'Give 1 to 65535.');
  return port;
}

/** Seconds, with a fraction or without, as milliseconds. */
export function parseSeconds(text: string): number {
  if (!/^\d{1,6}(\.\d{1,3})?$/.test(text)) throw usage(`${JSON.stringify(text)} is not a number of seconds`);
  return Math.round(Number(text) * 1000);
}

export function parsePattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw usage(`${JSON.stringify(text)} is not a regular expression: ${(error as Error).message}`);
  }
}

/** `3/10`: three tenths. Errors: USAGE. */
export function parsePart(text: string): { part: number; of: number } {
  const match = /^([1-9]\d{0,5})\/([1-9]\d{0,5})$/.exec(text);
  const [part, of] = [Number(match?.[1]), Number(match?.[2])];
  if (!match || part > of)
    throw new LivesnapError('USAGE', `${JSON.stringify(text)} is not a part`, {
      hint: 'Give it as n/m, n at most m: 1/10 is a tenth.',
    });
  return { part, of };
}

/** One of a few words. */
export const parseWord =
  <W extends string>(...words: W[]) =>
  (text: string): W => {
    if (!(words as string[]).includes(text))
      throw usage(`${JSON.stringify(text)} is not ${words.slice(0, -1).join(', ')} or ${words.at(-1)}`);
    return text as W;
  };

/** Any text but the empty one. */
export function parseText(text: string): string {
  if (text === '') throw usage('an empty value is no value');
  return text;
}

/**
 * The original's lists, `path=F,cmdline=S`. A value reaches to the next comma that is followed by a known key and
 * `=`, so that a kernel's command line may have commas of its own.
 */
export function parseList<K extends string>(
  option: string,
  text: string,
  keys: readonly K[],
): Partial<Record<K, string>> {
  const starts = [...text.matchAll(new RegExp(`(?:^|,)(${keys.join('|')})=`, 'g'))];
  if (starts[0]?.index !== 0 || text.startsWith(','))
    throw usage(`${option} ${text} is not a list of ${keys.map((key) => `${key}=…`).join(',')}`);
  const list: Partial<Record<K, string>> = {};
  for (const [i, start] of starts.entries()) {
    const key = start[1] as K;
    if (list[key] !== undefined) throw usage(`${option} gives ${key} twice`);
    list[key] = text.slice(start.index + start[0].length, starts[i + 1]?.index ?? text.length);
  }
  return list;
}

export interface KernelValue {
  readonly path: string;
  readonly cmdline: string | null;
  /** What was said that has no effect here, one sentence each. */
  readonly ignored: readonly string[];
}

/** `--kernel F`, or the original's `path=F,cmdline=S,kernel_load_addr=A,starter_file=F`. */
export function parseKernel(text: string): KernelValue {
  if (!/^(path|cmdline|kernel_load_addr|starter_file)=/.test(text))
    return { path: parseText(text), cmdline: null, ignored: [] };
  const list = parseList('--kernel', text, ['path', 'cmdline', 'kernel_load_addr', 'starter_file']);
  if (!list.path) throw usage('--kernel has no path=', 'Give --kernel path=FILE.');
  if (list.kernel_load_addr !== undefined && !/^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(list.kernel_load_addr))
    throw usage(`kernel_load_addr=${list.kernel_load_addr} is not an address`);
  const ignored: string[] = [];
  if (list.kernel_load_addr !== undefined)
    ignored.push('kernel_load_addr has no effect: a kernel is loaded where its image says');
  if (list.starter_file !== undefined)
    ignored.push('starter_file has no effect: livesnap enters the kernel itself');
  return { path: list.path, cmdline: list.cmdline ?? null, ignored };
}
