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
import { formatBytes, formatCount, formatDuration, shortId } from '../format.js';
import type { Progress } from '../page-stream.js';
import {
  hasColors,
  joined,
  printable,
  rendered,
  styled,
  type Text,
  text,
  UNPRINTABLE,
} from './styled-text.js';

/** `Tagged 705d4847a1a6 as first (moved from 0123456789ab)`. */
export const taggedSentence = (id: string, tag: string, movedFrom: string | null): string =>
  `Tagged ${shortId(id)} as ${tag}${movedFrom === null ? '' : ` (moved from ${shortId(movedFrom)})`}`;

/** JSON.stringify escapes no unprintable character from 0x7f on, but a terminal acts on them. */
const toJson = (value: unknown): string =>
  JSON.stringify(value).replace(UNPRINTABLE, (char) =>
    char
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  );

/** What progress is counted in. */
const UNITS = {
  bytes: { format: formatBytes, formatRate: (rate: number): string => formatBytes(Math.round(rate)) },
  things: {
    format: formatCount,
    formatRate: (rate: number): string => formatCount(Math.round(10 * rate) / 10),
  },
  /** Milliseconds of a time limit. */
  time: { format: formatDuration, formatRate: null },
};
export type ProgressUnit = keyof typeof UNITS;

/** `, 80 MiB/s, 12 s left`; empty in the first second. Without a total there is only the rate. */
export function paceOf(done: number, total: number | null, ms: number, unit: ProgressUnit = 'bytes'): string {
  const { formatRate } = UNITS[unit];
  if (ms < 1000 || formatRate === null) return '';
  const rate = (1000 * done) / ms;
  const left = total === null || rate === 0 ? null : (1000 * Math.max(total - done, 0)) / rate;
  return `, ${formatRate(rate)}/s${left === null ? '' : `, ${formatDuration(left)} left`}`;
}

export class Output {
  /** Prints to stderr. While a progress bar is shown, it is cleared first and drawn again below. */
  #print = (part: Text): void => void process.stderr.write(rendered(part, hasColors(process.stderr)));

  constructor(
    readonly json: boolean,
    readonly quiet: boolean,
  ) {}

  /** Prints the result: `value` with --json, the lines of `bare` with --quiet, else the lines of `human`. */
  result(value: unknown, human: () => Text, bare: () => Text = () => ''): void {
    const shown = this.json
      ? toJson(value)
      : rendered(this.quiet ? bare() : human(), hasColors(process.stdout));
    if (shown !== '') process.stdout.write(`${shown}\n`);
  }

  /** Prints a message, unless --quiet is given. */
  say(sentence: Text): void {
    if (!this.quiet) this.#print(text`${sentence}\n`);
  }

  /** Prints something about this host or this call that the user may not expect, unless --quiet is given. */
  note(sentence: string): void {
    this.say(noteOf(sentence));
  }

  /** Prints a message, unless --quiet or --json is given. */
  remark(sentence: Text): void {
    if (!this.json) this.say(sentence);
  }

  error(error: LivesnapError): void {
    if (this.json) process.stdout.write(`${toJson({ error: error.toJSON() })}\n`);
    else complain(error);
  }

  /** Runs `work` with a progress bar on stderr, if stderr is a terminal. After a second it shows the rate and the time left, too. */
  async withProgress<T>(
    label: string,
    work: (progress: Progress) => Promise<T>,
    unit: ProgressUnit = 'bytes',
  ): Promise<T> {
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
    const { format } = UNITS[unit];
    const startMs = performance.now();
    const start = (): void => bar.start(state.total, state.value, state.shown);
    const printAlone = this.#print;
    this.#print = (part) => {
      bar.stop();
      printAlone(part);
      start();
    };
    start();
    try {
      return await work((done, total) => {
        state = {
          total: Math.max(total ?? done, 1),
          value: total === null ? 0 : done,
          shown: {
            done: format(done),
            whole: total === null ? null : format(total),
            pace: paceOf(done, total, performance.now() - startMs, unit),
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

/** `note: SENTENCE`. */
export const noteOf = (sentence: string): Text => text`${styled('caution', 'note:')} ${sentence}`;

/** Prints an error to stderr: what happened, then what to do. */
export function complain(error: LivesnapError): void {
  const lines: Text[] = [text`${styled('bad', 'livesnap:')} ${printable(error.message)}`];
  if (error.hint !== undefined) lines.push(styled('aside', printable(error.hint)));
  if (process.env.LIVESNAP_DEBUG) lines.push((error.cause as Error)?.stack ?? error.stack ?? '');
  process.stderr.write(`${rendered(joined(lines), hasColors(process.stderr))}\n`);
}
