/**
 * Text for people, of which parts have a style.
 *
 * Invariants:
 * - A style becomes an escape sequence only when the text is written, around text that has been made printable. So names
 *   and messages from untrusted sources cannot bring sequences of their own.
 * - A style says nothing that the words do not say: without colors, nothing is lost.
 * - {@link hasColors} is the only place that decides whether a stream has colors.
 */
import { inspect } from 'node:util';

/** What a part of a text is, not how it looks. */
export type Style = 'heading' | 'good' | 'caution' | 'bad' | 'aside';

/** The 16 colors of every terminal, of which its user has chosen the shades. */
const LOOKS = {
  heading: 'bold',
  good: 'green',
  caution: 'yellow',
  bad: 'red',
  aside: 'dim',
} as const satisfies Record<Style, string>;

/** Controls, formats (U+202E), line ends and lone surrogates: a terminal acts on them or shows something else. */
export const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** `\x1b`, `\u202e`, `\u{e0041}`. */
function escaped(char: string): string {
  const code = char.codePointAt(0)!;
  const hex = code.toString(16);
  if (code <= 0xff) return `\\x${hex.padStart(2, '0')}`;
  return code <= 0xffff ? `\\u${hex.padStart(4, '0')}` : `\\u{${hex}}`;
}

/** Only characters from space to tilde. Most text is such, and this test takes a fraction of the search for others. */
export const isAscii = (text: string): boolean => /^[ -~]*$/.test(text);

/** Text from untrusted sources for a terminal: unprintable characters are shown as escapes. */
export const printable = (text: string): string =>
  isAscii(text) ? text : text.replace(UNPRINTABLE, escaped);

/** The same for text of several lines. */
const printableLines = (text: string): string =>
  /^[\n -~]*$/.test(text) ? text : text.split('\n').map(printable).join('\n');

interface Span {
  readonly text: string;
  /** Null: plain. */
  readonly style: Style | null;
}

/** Text with or without styles. */
export type Text = string | StyledText;

export class StyledText {
  constructor(readonly spans: readonly Span[]) {}

  /** Without styles. */
  toString(): string {
    return rendered(this, false);
  }
}

const spansOf = (part: Text): readonly Span[] =>
  part instanceof StyledText ? part.spans : [{ text: part, style: null }];

/** Text with one style. Null: none. */
export const styled = (style: Style | null, text: string): StyledText => new StyledText([{ text, style }]);

/** Puts parts into one text. Plain spans that follow each other become one: a table has thousands of parts. */
export function joined(parts: readonly Text[], separator = '\n'): StyledText {
  const spans: Span[] = [];
  let plain = '';
  const endPlain = (): void => {
    if (plain !== '') spans.push({ text: plain, style: null });
    plain = '';
  };
  parts.forEach((part, i) => {
    if (i > 0) plain += separator;
    for (const span of spansOf(part)) {
      if (span.style === null) plain += span.text;
      else {
        endPlain();
        spans.push(span);
      }
    }
  });
  endPlain();
  return new StyledText(spans);
}

/** A template whose values keep their styles. */
export const text = (strings: TemplateStringsArray, ...values: readonly Text[]): StyledText =>
  joined(
    strings.flatMap((string, i): Text[] => (i === 0 ? [string] : [values[i - 1]!, string])),
    '',
  );

/** What is written to a stream. */
export const rendered = (part: Text, colors: boolean): string =>
  spansOf(part)
    .map((span) => {
      const shown = printableLines(span.text);
      if (!colors || span.style === null || shown === '') return shown;
      // util.styleText would ask about a stream again, in its own way in each version of Node.
      const [on, off] = inspect.colors[LOOKS[span.style]]!;
      return `\x1b[${on}m${shown}\x1b[${off}m`;
    })
    .join('');

/**
 * Whether a stream has colors: a terminal with a type that is not `dumb`, unless NO_COLOR (no-color.org) or CI is set.
 * The log of a CI service may be read without a terminal, even if the job has one.
 */
export function hasColors(
  stream: { readonly isTTY?: boolean },
  { NO_COLOR, CI, TERM }: NodeJS.ProcessEnv = process.env,
): boolean {
  return stream.isTTY === true && !NO_COLOR && !CI && !!TERM && TERM !== 'dumb';
}
