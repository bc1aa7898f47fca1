/**
 * What a verb prints: its result on stdout, as JSON or for people; everything else on stderr.
 *
 * Invariants: with --json stdout holds one JSON value and nothing else; with --quiet stderr holds errors only and
 * stdout no words, just what scripts want (ids, names). No control or format character but the ends of lines is
 * printed: names, ids and messages may be a stranger's. The terminal's modes are never changed, so that no signal can
 * leave it changed.
 */
import { styleText } from 'node:util';
import cliProgress from 'cli-progress';
import type { LivesnapError } from '../errors.js';
import type { Progress } from '../store/types.js';

/** `256 MiB`, `1.5 GiB`: binary units, three digits at most. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 999.5 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || Math.abs(value) >= 99.95 || Number.isInteger(value) ? 0 : 1;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** Local time to the second. */
export function formatTime(iso: string): string {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return iso;
  const two = (n: number) => String(n).padStart(2, '0');
  const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  return `${day} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

export const formatMs = (ms: number): string =>
  ms >= 10_000
    ? `${(ms / 1000).toFixed(0)} s`
    : ms >= 1000
      ? `${(ms / 1000).toFixed(1)} s`
      : `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;

/** An id as people see it; any unique prefix names the snapshot. */
export const shortId = (id: string): string => id.slice(0, 12);

/** `Tagged 705d4847a1a6 as first (was 0123456789ab)`. */
export const taggedSentence = (id: string, tag: string, movedFrom: string | null): string =>
  `Tagged ${shortId(id)} as ${tag}${movedFrom === null ? '' : ` (was ${shortId(movedFrom)})`}`;

/** What a terminal may act on, or show as something else: controls, formats (U+202E), line ends, lone surrogates. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** `\x1b`, `\u202e`, `\u{e0041}`. */
function escaped(char: string): string {
  const code = char.codePointAt(0)!;
  const hex = code.toString(16);
  if (code <= 0xff) return `\\x${hex.padStart(2, '0')}`;
  return code <= 0xffff ? `\\u${hex.padStart(4, '0')}` : `\\u{${hex}}`;
}

/** Text from outside that is shown on a terminal: characters that would not be shown as such are made visible. */
export const printable = (text: string): string => text.replace(UNPRINTABLE, escaped);

/** Lines of which any may have text from outside. */
const printableLines = (text: string): string => text.split('\n').map(printable).join('\n');

/** JSON leaves the unprintable characters from 0x7f on as they are; a terminal would not. */
const toJson = (value: unknown): string =>
  JSON.stringify(value).replace(UNPRINTABLE, (char) =>
    char
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  );

export interface Column<T> {
  readonly title: string;
  readonly cell: (row: T) => string | null;
  readonly right?: boolean;
}

/** A table with a line of titles; null cells are dashes. */
export function formatTable<T>(rows: readonly T[], columns: readonly Column<T>[]): string {
  const cells = [
    columns.map((column) => column.title),
    ...rows.map((row) => columns.map((column) => printable(column.cell(row) ?? '-'))),
  ];
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => line[i]!.length)));
  return cells
    .map((line) =>
      line
        .map((text, i) => (columns[i]!.right ? text.padStart(widths[i]!) : text.padEnd(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Names and values below each other. */
export function formatPairs(pairs: readonly (readonly [string, string | null])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `${name.padEnd(width)}  ${printable(value ?? '-')}`).join('\n');
}

export class Output {
  /** Prints with the bar, if there is one, out of the way. */
  #print = (text: string): void => void process.stderr.write(text);

  constructor(
    readonly json: boolean,
    readonly quiet: boolean,
  ) {}

  /** The verb's result: `value` with --json, else the lines of `human`, else (--quiet) of `bare`. */
  result(value: unknown, human: () => string, bare: () => string = () => ''): void {
    const text = this.json ? toJson(value) : printableLines(this.quiet ? bare() : human());
    if (text !== '') process.stdout.write(`${text}\n`);
  }

  /** A sentence for whoever is watching. */
  say(sentence: string): void {
    if (!this.quiet) this.#print(`${printableLines(sentence)}\n`);
  }

  /** `say`, when the result is for people. */
  remark(sentence: string): void {
    if (!this.json) this.say(sentence);
  }

  error(error: LivesnapError): void {
    if (this.json) process.stdout.write(`${toJson({ error: error.toJSON() })}\n`);
    else complain(error);
  }

  /** Runs `work` with a bar on stderr if that is a terminal. */
  async withProgress<T>(label: string, work: (progress: Progress) => Promise<T>): Promise<T> {
    if (this.quiet || !process.stderr.isTTY) return work(() => {});
    const bar = new cliProgress.SingleBar(
      {
        format: (options, params, { done, whole }) =>
          whole === null
            ? `${label}: ${done}`
            : `${label} ${cliProgress.Format.BarFormat(params.progress, options)} ${done} of ${whole}`,
        // A hidden cursor, and lines that do not wrap, would stay so after a signal.
        hideCursor: false,
        linewrap: true,
        clearOnComplete: true,
        stopOnComplete: false,
        barsize: 30,
        fps: 8,
        stream: process.stderr,
      },
      cliProgress.Presets.shades_classic,
    );
    let state = { total: 1, value: 0, shown: { done: '…', whole: null as string | null } };
    const start = (): void => bar.start(state.total, state.value, state.shown);
    const printAlone = this.#print;
    this.#print = (text) => {
      bar.stop();
      printAlone(text);
      start();
    };
    start();
    try {
      return await work((doneBytes, totalBytes) => {
        state = {
          total: Math.max(totalBytes ?? doneBytes, 1),
          value: totalBytes === null ? 0 : doneBytes,
          shown: {
            done: formatBytes(doneBytes),
            whole: totalBytes === null ? null : formatBytes(totalBytes),
          },
        };
        bar.setTotal(state.total);
        bar.update(state.value, state.shown);
      });
    } finally {
      this.#print = printAlone;
      bar.stop();
    }
  }
}

/** The error as people see it, on stderr: the sentence, then what to do about it. */
export function complain(error: LivesnapError): void {
  process.stderr.write(`livesnap: ${printable(error.message)}\n`);
  if (error.hint !== undefined) process.stderr.write(`${dim(printable(error.hint))}\n`);
  if (process.env.LIVESNAP_DEBUG)
    process.stderr.write(`${printableLines((error.cause as Error)?.stack ?? error.stack ?? '')}\n`);
}

const dim = (text: string): string => (process.stderr.isTTY ? styleText('dim', text) : text);
