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
import type { LivesnapError } from '../errors.js';
import { formatBytes, formatDuration, shortId } from '../format.js';
import type { Progress } from '../page-stream.js';
import { styled } from './styles.js';

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
  /** On a narrow terminal, cells may be cut to this many characters. Left out: never. */
  readonly cutTo?: number;
  /** On a narrow terminal, columns are left out in this order, the lowest first. Left out: always shown. */
  readonly spare?: number;
}

/** Of the terminal on stdout. A pipe or a file takes lines of any width. */
const terminalColumns = (): number => (process.stdout.isTTY && process.stdout.columns) || Infinity;

const GAP = '  ';

const lengthOf = (text: string): number => [...text].length;

const cutTo = (width: number, text: string): string =>
  lengthOf(text) <= width ? text : `${[...text].slice(0, width - 1).join('')}…`;

/** A table with a line of titles. A null cell is a dash. */
export function formatTable<T>(
  rows: readonly T[],
  columns: readonly Column<T>[],
  terminalWidth = terminalColumns(),
): string {
  const parts = columns.map((column) => {
    const cells = [column.title, ...rows.map((row) => printable(column.cell(row) ?? '-'))];
    const width = Math.max(...cells.map(lengthOf));
    const least =
      column.cutTo === undefined ? width : Math.min(width, Math.max(column.cutTo, lengthOf(column.title)));
    return { ...column, cells, width, least };
  });
  const shown = fitColumns(parts, terminalWidth);
  return [...rows.keys(), rows.length]
    .map((line) =>
      shown
        .map(({ cells, width, right }) => {
          const text = cutTo(width, cells[line]!);
          const padding = ' '.repeat(width - lengthOf(text));
          return right ? padding + text : text + padding;
        })
        .join(GAP)
        .trimEnd(),
    )
    .join('\n');
}

interface Fitted {
  /** Of the widest cell, then as it will be. */
  readonly width: number;
  /** To which it may be cut. */
  readonly least: number;
  readonly spare?: number;
}

/** Cuts the columns to fit, the widest most. If that is not enough, leaves out the least useful one and starts again. */
function fitColumns<P extends Fitted>(parts: readonly P[], terminalWidth: number): readonly P[] {
  const total = (widths: readonly number[]): number =>
    widths.reduce((sum, width) => sum + width, 0) + GAP.length * (widths.length - 1);
  const spares = parts.flatMap(({ spare }) => (spare === undefined ? [] : [spare]));
  if (total(parts.map(({ least }) => least)) > terminalWidth && spares.length > 0)
    return fitColumns(
      parts.filter(({ spare }) => spare !== Math.min(...spares)),
      terminalWidth,
    );
  const widths = parts.map(({ width }) => width);
  while (total(widths) > terminalWidth) {
    const room = widths.map((width, i) => (width > parts[i]!.least ? width : 0));
    const widest = Math.max(...room);
    if (widest === 0) break; // what is left does not fit
    widths[room.indexOf(widest)]!--;
  }
  return parts.map((part, i) => ({ ...part, width: widths[i]! }));
}

/** Names and values in two columns. */
export function formatPairs(pairs: readonly (readonly [string, string | null])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `${name.padEnd(width)}  ${printable(value ?? '-')}`).join('\n');
}

/** `, 80 MiB/s, 12 s left`; empty in the first second. Without a total there is only the rate. */
export function paceOf(doneBytes: number, totalBytes: number | null, ms: number): string {
  if (ms < 1000) return '';
  const rate = (1000 * doneBytes) / ms;
  const left = totalBytes === null || rate === 0 ? null : (1000 * Math.max(totalBytes - doneBytes, 0)) / rate;
  return `, ${formatBytes(Math.round(rate))}/s${left === null ? '' : `, ${formatDuration(left)} left`}`;
}

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

  /** Runs `work` with a progress bar on stderr, if stderr is a terminal. After a second it shows the rate and the time left, too. */
  async withProgress<T>(label: string, work: (progress: Progress) => Promise<T>): Promise<T> {
    if (this.quiet || !process.stderr.isTTY) return work(() => {});
    const { default: cliProgress } = await import('cli-progress');
    const bar = new cliProgress.SingleBar(
      {
        format: (options, params, { done, whole, pace }) =>
          whole === null
            ? `${label}: ${done}${pace}`
            : `${label} ${cliProgress.Format.BarFormat(params.progress, options)} ${done} of ${whole}${pace}`,
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
    let state = { total: 1, value: 0, shown: { done: '…', whole: null as string | null, pace: '' } };
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
            pace: paceOf(doneBytes, totalBytes, performance.now() - startMs),
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
  const { stderr } = process;
  stderr.write(`${styled('livesnap:', 'red', stderr)} ${printable(error.message)}\n`);
  if (error.hint !== undefined) stderr.write(`${styled(printable(error.hint), 'dim', stderr)}\n`);
  if (process.env.LIVESNAP_DEBUG)
    process.stderr.write(`${printableLines((error.cause as Error)?.stack ?? error.stack ?? '')}\n`);
}
