/**
 * Parsers of option values. Each one raises USAGE with a message about the value; the caller adds the option's name.
 */
import { resolve } from 'node:path';
import { LivesnapError } from '../errors.js';
import type { CalendarSpan, GroupKey } from '../host/forget-policy.js';
import { requireMemory } from '../host/guest-memory.js';
import { schemeOf } from '../store/remote/address.js';
import type { ValueParser } from './verb.js';

const usage = (message: string, hint: string): LivesnapError => new LivesnapError('USAGE', message, { hint });

const quoted = (text: string): string => JSON.stringify(text);

const UNIT_BYTES: Record<string, number> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** `256M`, `1.5G`, `4096`, `64KiB` in bytes. Units are powers of 1024. */
export function parseSize(text: string): number {
  const found = /^(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?)(?:i?B)?$/i.exec(text);
  const bytes = found === null ? Number.NaN : Number(found[1]) * UNIT_BYTES[found[2]!.toUpperCase()]!;
  if (!Number.isSafeInteger(bytes))
    throw usage(`${quoted(text)} is not a size`, 'Examples of sizes: 256M, 1.5G.');
  return bytes;
}

/** Guest memory: at least one page, whole pages, and no more than the host has. */
export function parseMemory(text: string): number {
  if (text.startsWith('size_mib=')) return requireMemory(sizeMib(text));
  const bytes = parseSize(text);
  // A number without a unit is bytes, but 512 is meant as MiB, as in other VMMs.
  if (/^\d+$/.test(text) && bytes > 0 && bytes < UNIT_BYTES.M!)
    throw usage(`${text} bytes of memory are too few`, `Did you mean ${text}M?`);
  return requireMemory(bytes);
}

function sizeMib(text: string): number {
  const { size_mib } = parseList(text, ['size_mib']);
  if (!/^\d{1,9}$/.test(size_mib ?? ''))
    throw usage(`${quoted(text)} is not a number of MiB`, 'Example: size_mib=256.');
  return Number(size_mib) * 2 ** 20;
}

/** A number of vCPUs. The host's limit is checked when the machine is created. */
export function parseCpus(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw usage(`${quoted(text)} is not a number of vCPUs`, 'Specify 1 or more.');
  return Number(text);
}

/** A number of lines. */
export function parseLines(text: string): number {
  if (/^\d{1,7}$/.test(text)) return Number(text);
  throw usage(`${quoted(text)} is not a number of lines`, 'Example: 20.');
}

export function parseVcpu(text: string): number {
  if (!text.startsWith('num=')) throw usage(`${quoted(text)} does not begin with num=`, 'Example: num=2.');
  return parseCpus(parseList(text, ['num']).num ?? '');
}

export interface SnapshotRegion {
  readonly snapshot: string;
  readonly region: string | null;
}

/** `SNAPSHOT` or `SNAPSHOT:REGION`. The region is null if none is named. */
export function parseSnapshotRegion(text: string): SnapshotRegion {
  const found = /^([^:]+)(?::(.+))?$/s.exec(text);
  if (!found)
    throw usage(`${quoted(text)} is not SNAPSHOT or SNAPSHOT:REGION`, 'Examples: debian, web:disk0.');
  return { snapshot: found[1]!, region: found[2] ?? null };
}

/** The number of a disk: `0` or `disk0`. */
export function parseDisk(text: string): number {
  const found = /^(?:disk)?(0|[1-9]\d{0,8})$/.exec(text);
  if (!found) throw usage(`${quoted(text)} is not the number of a disk`, 'Examples: 0, disk1.');
  return Number(found[1]);
}

export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65_535) throw usage(`${quoted(text)} is not a port`, 'Specify 1 to 65535.');
  return port;
}

/** Seconds, with or without a fraction, in milliseconds. */
export function parseSeconds(text: string): number {
  if (!/^\d{1,6}(\.\d{1,3})?$/.test(text))
    throw usage(`${quoted(text)} is not a number of seconds`, 'Examples: 10, 0.5.');
  return Math.round(Number(text) * 1000);
}

const UNIT_MS: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `90s`, `10m`, `1.5h`, `7d` in milliseconds. */
export function parseDuration(text: string): number {
  const [, number, unit] = /^(\d{1,9}(?:\.\d{1,3})?)([smhd])$/.exec(text) ?? [];
  if (number === undefined || Number(number) === 0)
    throw usage(`${quoted(text)} is not a time`, 'Examples: 90s, 10m, 8h, 7d.');
  return Math.round(Number(number) * UNIT_MS[unit!]!);
}

const MOMENT_HINT =
  'Examples: 90s, 10m, 8h, 7d (that long ago), 2026-01-31, 2026-01-31T18:30, 2026-01-31T18:30:00Z.';
const DATE = /^(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d)(?::(\d\d))?(Z|[+-]\d\d:\d\d)?)?$/;

/** A moment: a time before `nowMs`, or a date with or without a time, which is local unless it says. In ms since 1970. */
export function parseMoment(text: string, nowMs = Date.now()): number {
  if (/^[\d.]+[smhd]$/.test(text)) return nowMs - parseDuration(text);
  const [, date, minutes = '00:00', seconds = '00', zone = ''] = DATE.exec(text) ?? [];
  const ms = Date.parse(`${date}T${minutes}:${seconds}${zone}`);
  // Date would take February 30 for March 2.
  const isDay = date !== undefined && new Date(`${date}T00:00:00Z`).toJSON()?.startsWith(date);
  if (Number.isNaN(ms) || !isDay) throw usage(`${quoted(text)} is not a time`, MOMENT_HINT);
  return ms;
}

/** A number of things: 1 or more. */
export function parseCount(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw usage(`${quoted(text)} is not a number`, 'Specify 1 or more.');
  return Number(text);
}

/** How many snapshots a rule keeps: 1 or more, or all. */
export function parseKeepCount(text: string): number {
  if (text === 'unlimited') return Infinity;
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw usage(`${quoted(text)} is not a number`, 'Specify 1 or more, or unlimited.');
  return Number(text);
}

const SPAN_UNITS = { y: 'years', m: 'months', d: 'days', h: 'hours' } as const;

/** `2y5m7d3h`: years, months, days and hours of the calendar, as restic has them. */
export function parseSpan(text: string): CalendarSpan {
  const span = { years: 0, months: 0, days: 0, hours: 0 };
  const isSpan = /^(?:\d{1,4}[ymdh])+$/.test(text);
  for (const [, number, unit] of isSpan ? text.matchAll(/(\d+)([ymdh])/g) : [])
    span[SPAN_UNITS[unit as keyof typeof SPAN_UNITS]] += Number(number);
  if (Object.values(span).every((number) => number === 0))
    throw usage(
      `${quoted(text)} is not a number of years, months, days and hours`,
      'Examples: 7d, 1m (a month), 2y5m7d3h.',
    );
  return span;
}

/** `machine`, `label:KEY` or both with a comma; `none`. */
export function parseGroupBy(text: string): GroupKey[] {
  if (text === 'none') return [];
  return text.split(',').map((part): GroupKey => {
    if (part === 'machine') return { by: 'machine' };
    if (/^label:./.test(part)) return { by: 'label', label: part.slice('label:'.length) };
    throw usage(
      `${quoted(text)} is no way to group`,
      'Use machine, label:KEY, both as in machine,label:KEY, or none.',
    );
  });
}

export function parsePattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw usage(
      `${quoted(text)} is not a regular expression: ${(error as Error).message}`,
      "Example: '^OK'. JavaScript's syntax applies.",
    );
  }
}

/** The help of `--starter-prompt`. */
export const STARTER_PROMPT_HELP = 'Prompt at which a starter line is typed';

/** `3/10`: the third of ten parts. */
export function parsePart(text: string): { part: number; of: number } {
  const match = /^([1-9]\d{0,5})\/([1-9]\d{0,5})$/.exec(text);
  const [part, of] = [Number(match?.[1]), Number(match?.[2])];
  if (!match || part > of)
    throw usage(`${quoted(text)} is not a part`, 'Specify n/m with n at most m. Example: 1/10 is a tenth.');
  return { part, of };
}

/** One of a few words. */
export function parseWord<W extends string>(...words: W[]): ValueParser<W> {
  const parse = (text: string): W => {
    if ((words as string[]).includes(text)) return text as W;
    const list = `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
    throw usage(`${quoted(text)} is not ${list}`, `Specify ${list}.`);
  };
  return Object.assign(parse, { words });
}

/** Any text but the empty one. */
export function parseText(text: string): string {
  if (text === '') throw usage('the value is empty', 'Specify a value.');
  return text;
}

/** Any text, even the empty one. */
export const anyText = (text: string): string => text;

/**
 * A legacy list, `path=F,cmdline=S`. A value ends at the next comma that is followed by a known key and `=`, so the
 * command line of a kernel may contain commas.
 */
export function parseList<K extends string>(text: string, keys: readonly K[]): Partial<Record<K, string>> {
  const form = keys.map((key) => `${key}=…`).join(',');
  const starts = [...text.matchAll(new RegExp(`(?:^|,)(${keys.join('|')})=`, 'g'))];
  if (starts[0]?.index !== 0 || text.startsWith(','))
    throw usage(`${quoted(text)} does not begin with ${keys[0]}=`, `Write it as ${form}.`);
  const list: Partial<Record<K, string>> = {};
  for (const [i, start] of starts.entries()) {
    const key = start[1] as K;
    if (list[key] !== undefined) throw usage(`${key} is given twice`, `Give ${key} once.`);
    list[key] = text.slice(start.index + start[0].length, starts[i + 1]?.index ?? text.length);
  }
  return list;
}

export interface KernelValue {
  readonly path: string;
  readonly cmdline: string | null;
  readonly starterFile: string | null;
  /** One sentence for each part of the value that has no effect. */
  readonly ignored: readonly string[];
}

/** `--kernel F`, `--kernel F,starter_file=S`, or the legacy `path=F,cmdline=S,kernel_load_addr=A,starter_file=F`. */
export function parseKernel(text: string): KernelValue {
  if (!/^(path|cmdline|kernel_load_addr|starter_file)=/.test(text)) {
    const [, path = text, starterFile = null] = /^(.+?),starter_file=(.+)$/s.exec(text) ?? [];
    return { path: parseText(path), cmdline: null, starterFile, ignored: [] };
  }
  const list = parseList(text, ['path', 'cmdline', 'kernel_load_addr', 'starter_file']);
  if (!list.path) throw usage(`${quoted(text)} has no path=FILE`, 'Add path= and the file of the kernel.');
  if (list.kernel_load_addr !== undefined && !/^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(list.kernel_load_addr))
    throw usage(
      `kernel_load_addr=${list.kernel_load_addr} is not an address`,
      'Leave it out: the kernel is loaded at the address in its image.',
    );
  const ignored: string[] = [];
  if (list.kernel_load_addr !== undefined)
    ignored.push('kernel_load_addr has no effect: the kernel is loaded at the address in its image');
  if (list.starter_file === '') throw usage('starter_file= is empty', 'Give a file, or leave it out.');
  return { path: list.path, cmdline: list.cmdline ?? null, starterFile: list.starter_file ?? null, ignored };
}

export interface ListenAddress {
  readonly address: string;
  readonly port: number;
}

/** `127.0.0.1:7070`, `[::1]:7070`, `7070`, `none`. Port 0: the system chooses one. */
export function parseListen(given: string): ListenAddress | 'none' {
  const text = parseText(given);
  if (text === 'none') return text;
  const [, v6, v4 = v6 ?? '127.0.0.1', digits] =
    /^(?:\[([0-9a-f:]+)\]:|([\w.-]+):)?(\d{1,5})$/i.exec(text) ?? [];
  const port = Number(digits ?? Number.NaN);
  if (port <= 65_535) return { address: v6 ?? v4, port };
  throw usage(`${quoted(text)} is not an address and a port`, 'Examples: 127.0.0.1:7070, 0.0.0.0:443, none.');
}

/** `NAME=ADDRESS`: a name for requests, and an address or the path of a directory. */
export function parseRemote(given: string): readonly [string, string] {
  const text = parseText(given);
  const [, name, address] = /^([A-Za-z0-9][\w.-]{0,62})=(.+)$/s.exec(text) ?? [];
  if (name === undefined || address === undefined)
    throw usage(`${quoted(text)} is not a name and an address`, 'Example: backup=ssh://host/srv/livesnap.');
  return [name, schemeOf(address) === null ? resolve(address) : address];
}

/** `NAME=DIR`: a name for requests, and the path of a store. */
export function parseNamedStore(given: string): readonly [string, string] {
  const text = parseText(given);
  const [, name, dir] = /^([A-Za-z0-9][\w.-]{0,62})=(.+)$/s.exec(text) ?? [];
  if (name === undefined || dir === undefined)
    throw usage(`${quoted(text)} is not a name and a directory`, 'Example: archive=/srv/livesnap.');
  return [name, resolve(dir)];
}

/** `8000-8099`, or one port. */
export function parsePortRange(given: string): { readonly from: number; readonly to: number } {
  const [, from = '', to = from] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(given) ?? [];
  const range = { from: Number(from || Number.NaN), to: Number(to) };
  if (range.from >= 1 && range.from <= range.to && range.to <= 65_535) return range;
  throw usage(`${quoted(given)} is not a range of ports`, 'Example: 8000-8099.');
}
