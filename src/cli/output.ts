/**
 * The output of a verb: its result on stdout, as JSON or for people, and everything else on stderr.
 *
 * Invariants:
 * - With --json, stdout holds one JSON value and nothing else.
 * - With --quiet, stderr holds only errors, and stdout only the IDs and names that scripts need.
 * - Control and format characters other than line ends are never printed: names, IDs and messages may come from
 *   untrusted sources.
 * - The modes of the terminal are never changed, so no signal can leave them changed.
 */
import { styleText } from 'node:util';
import type { LivesnapError } from '../errors.js';
import { formatBytes, shortId } from '../format.js';
import type { Progress } from '../page-stream.js';

/** `Tagged 705d4847a1a6 as first (moved from 0123456789ab)`. */
export const taggedSentence = (id: string, tag: string, movedFrom: string | null): string =>
  `Tagged ${shortId(id)} as ${tag}${movedFrom === null ? '' : ` (moved from ${shortId(movedFrom)})`}`;

/** Controls, formats (U+202E), line ends and lone surrogates: a terminal acts on them or shows something else. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** `\x1b`, `\u202e`, `\u{e0041}`. */
function escaped(char: string): string {
  const code = char.codePointAt(0)!;
  const hex = code.toString(16);
  if (code <= 0xff) return `\\x${hex.padStart(2, '0')}`;
  return code <= 0xffff ? `\\u${hex.padStart(4, '0')}` : `\\u{${hex}}`;
}

/** Text from untrusted sources for a terminal: unprintable characters are shown as escapes. */
export const printable = (text: string): string => text.replace(UNPRINTABLE, escaped);

/** The same for text of several lines. */
const printableLines = (text: string): string => text.split('\n').map(printable).join('\n');

/** JSON.stringify escapes no unprintable character from 0x7f on, but a terminal acts on them. */
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

/** A table with a line of titles. A null cell is a dash. */
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

/** Names and values in two columns. */
export function formatPairs(pairs: readonly (readonly [string, string | null])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `${name.padEnd(width)}  ${printable(value ?? '-')}`).join('\n');
}

/** `, 80 MiB/s`; empty in the first second. */
const rateOf = (bytes: number, ms: number): string =>
  ms < 1000 ? '' : `, ${formatBytes(Math.round((1000 * bytes) / ms))}/s`;

export class Output {
  /** Prints to stderr. While a progress bar is shown, it is cleared first and drawn again below. */
  #print = (text: string): void => void process.stderr.write(text);

  constructor(
    readonly json: boolean,
    readonly quiet: boolean,
  ) {}

  /** Prints the result: `value` with --json, the lines of `bare` with --quiet, else the lines of `human`. */
  result(value: unknown, human: () => string, bare: () => string = () => ''): void {
    const text = this.json ? toJson(value) : printableLines(this.quiet ? bare() : human());
    if (text !== '') process.stdout.write(`${text}\n`);
  }

  /** Prints a message, unless --quiet is given. */
  say(sentence: string): void {
    if (!this.quiet) this.#print(`${printableLines(sentence)}\n`);
  }

  /** Prints a message, unless --quiet or --json is given. */
  remark(sentence: string): void {
    if (!this.json) this.say(sentence);
  }

  error(error: LivesnapError): void {
    if (this.json) process.stdout.write(`${toJson({ error: error.toJSON() })}\n`);
    else complain(error);
  }

  /** Runs `work` with a progress bar on stderr, if stderr is a terminal. After a second it shows the rate, too. */
  async withProgress<T>(label: string, work: (progress: Progress) => Promise<T>): Promise<T> {
    if (this.quiet || !process.stderr.isTTY) return work(() => {});
    const { default: cliProgress } = await import('cli-progress');
    const bar = new cliProgress.SingleBar(
      {
        format: (options, params, { done, whole, rate }) =>
          whole === null
            ? `${label}: ${done}${rate}`
            : `${label} ${cliProgress.Format.BarFormat(params.progress, options)} ${done} of ${whole}${rate}`,
        // A signal would leave the cursor hidden and line wrapping off.
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
    let state = { total: 1, value: 0, shown: { done: '…', whole: null as string | null, rate: '' } };
    const startMs = performance.now();
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
            rate: rateOf(doneBytes, performance.now() - startMs),
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

/** Prints an error to stderr: what happened, then what to do. */
export function complain(error: LivesnapError): void {
  process.stderr.write(`livesnap: ${printable(error.message)}\n`);
  if (error.hint !== undefined) process.stderr.write(`${dim(printable(error.hint))}\n`);
  if (process.env.LIVESNAP_DEBUG)
    process.stderr.write(`${printableLines((error.cause as Error)?.stack ?? error.stack ?? '')}\n`);
}

const dim = (text: string): string => (process.stderr.isTTY ? styleText('dim', text) : text);
