/** Tables and lists of pairs for people. A table fits the width of the terminal, if it can. */
import {
  isAscii,
  joined,
  printable,
  type Style,
  type StyledText,
  styled,
  type Text,
  text,
} from './styled-text.js';

export interface Column<T> {
  readonly title: string;
  readonly cell: (row: T) => string | null;
  readonly right?: boolean;
  /** Of the cell of a row. Null: none. */
  readonly style?: (row: T) => Style | null;
  /** On a narrow terminal, cells may be cut to this many characters. Left out: never. */
  readonly cutTo?: number;
  /** On a narrow terminal, columns are left out in this order, the lowest first. Left out: always shown. */
  readonly spare?: number;
}

/** Of the terminal on stdout. A pipe or a file takes lines of any width. */
const terminalColumns = (): number => (process.stdout.isTTY && process.stdout.columns) || Infinity;

const GAP = '  ';

const lengthOf = (text: string): number => (isAscii(text) ? text.length : [...text].length);

const cutTo = (width: number, text: string, length: number): string =>
  length <= width ? text : `${[...text].slice(0, width - 1).join('')}…`;

/** A table with a line of titles. A null cell is a dash. */
export function formatTable<T>(
  rows: readonly T[],
  columns: readonly Column<T>[],
  terminalWidth = terminalColumns(),
): StyledText {
  const parts = columns.map((column) => {
    const cells = [column.title, ...rows.map((row) => printable(column.cell(row) ?? '-'))];
    const lengths = cells.map(lengthOf);
    const width = lengths.reduce((most, length) => Math.max(most, length), 0);
    const least =
      column.cutTo === undefined ? width : Math.min(width, Math.max(column.cutTo, lengthOf(column.title)));
    return { ...column, cells, lengths, width, least };
  });
  const shown = fitColumns(parts, terminalWidth);
  const texts: Text[] = [];
  let plain = '';
  for (let line = 0; line <= rows.length; line++) {
    if (line > 0) plain += '\n';
    shown.forEach(({ cells, lengths, width, right, style }, i) => {
      const length = lengths[line]!;
      const cell = cutTo(width, cells[line]!, length);
      const padding = ' '.repeat(width - Math.min(width, length));
      const look = line === 0 ? 'heading' : style === undefined ? null : style(rows[line - 1]!);
      if (i > 0) plain += GAP;
      if (right) plain += padding;
      if (look === null) plain += cell;
      else {
        texts.push(plain, styled(look, cell));
        plain = '';
      }
      if (!right && i < shown.length - 1) plain += padding;
    });
  }
  texts.push(plain);
  return joined(texts, '');
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
export function formatPairs(pairs: readonly (readonly [string, Text | null])[]): StyledText {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return joined(
    pairs.map(([name, value]) => {
      const shown = typeof value === 'string' ? printable(value) : (value ?? '-');
      return text`${name.padEnd(width)}  ${shown}`;
    }),
  );
}
