/**
 * Where the cells of a page map are. Pure.
 *
 * A row is a manifest block of 512 pages, 2 MiB, and a column is a page. Above 256 rows, cells stand for several pages, a
 * power of two, and a row for as many blocks.
 */
export const COLUMNS = 512;
const MAX_ROWS = 256;
export const MAX_CELLS = COLUMNS * MAX_ROWS;

/** The bits of a cell, as docs/library.md has them. */
export const CLASS = { own: 1, shared: 2, damaged: 4, changed: 8 } as const;

export type Hue = 'zero' | 'shared' | 'own' | 'damaged';

/** What is shown of a cell with pages of several classes: what a person should know first. */
export const hueOf = (cell: number): Hue =>
  cell & CLASS.damaged ? 'damaged' : cell & CLASS.own ? 'own' : cell & CLASS.shared ? 'shared' : 'zero';

/** Every third diagonal of changed cells is hatched. Damage is never hidden. */
export const isHatched = (cell: number, column: number, row: number): boolean =>
  (cell & CLASS.changed) !== 0 && (cell & CLASS.damaged) === 0 && (column + row) % 3 === 0;

export const rowsOf = (cells: number): number => Math.ceil(cells / COLUMNS);

/** How many columns a picture of this width has: a power of two, so that none is narrower than a pixel of the screen. */
export function columnsFor(widthPixels: number): number {
  let columns = COLUMNS;
  while (columns > 1 && columns > widthPixels) columns /= 2;
  return columns;
}

/** The cells for so many columns. Each has the classes of all cells in its place, so that none is lost. */
export function folded(cells: Uint8Array, columns: number): Uint8Array {
  const together = COLUMNS / columns;
  if (together === 1) return cells;
  const fewer = new Uint8Array(Math.ceil(cells.length / together));
  for (let i = 0; i < cells.length; i++) fewer[Math.floor(i / together)]! |= cells[i]!;
  return fewer;
}

/** The cell of a page, or the nearest. 0 without cells. */
export const cellOf = (page: number, fromPage: number, pagesPerCell: number, cells: number): number =>
  Math.max(0, Math.min(cells - 1, Math.floor((page - fromPage) / pagesPerCell)));

/** The cell that an arrow key leads to. */
export function moved(cell: number, key: string, cells: number): number {
  const steps: Record<string, number> = {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -COLUMNS,
    ArrowDown: COLUMNS,
    PageUp: -16 * COLUMNS,
    PageDown: 16 * COLUMNS,
  };
  if (key === 'Home') return 0;
  if (key === 'End') return cells - 1;
  const next = cell + (steps[key] ?? 0);
  return next < 0 || next >= cells ? cell : next;
}

export interface BlockCounts {
  readonly firstPage: number;
  readonly zero: number;
  readonly shared: number;
  readonly own: number;
  readonly damaged: number;
  readonly changed: number;
}

/** How many cells of each row are of each class: the map for those who cannot see it. */
export function countsOf(cells: Uint8Array, pagesPerCell: number, fromPage: number): BlockCounts[] {
  const counts: BlockCounts[] = [];
  for (let row = 0; row < rowsOf(cells.length); row++) {
    const of = { zero: 0, shared: 0, own: 0, damaged: 0, changed: 0 };
    for (const cell of cells.subarray(row * COLUMNS, (row + 1) * COLUMNS)) {
      of[hueOf(cell)]++;
      if (cell & CLASS.changed) of.changed++;
    }
    counts.push({ firstPage: fromPage + row * COLUMNS * pagesPerCell, ...of });
  }
  return counts;
}

/** What a cell is, in words. */
export function describeCell(cell: number, pagesPerCell: number): string {
  const classes = (['own', 'shared', 'damaged'] as const).filter((name) => cell & CLASS[name]);
  const what = classes.length === 0 ? 'zero' : classes.join(' and ');
  const changed = cell & CLASS.changed ? ', changed' : '';
  return `${pagesPerCell === 1 ? '' : `${pagesPerCell} pages: `}${what}${changed}`;
}
