/** The pages of a region as a picture: one cell a page, or several; and as a table. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { formatBytes, formatCount } from '../../format.js';
import { request } from '../api.js';
import { attempt } from '../notice.js';
import {
  COLUMNS,
  cellOf,
  columnsFor,
  countsOf,
  describeCell,
  folded,
  type Hue,
  hueOf,
  isHatched,
  MAX_CELLS,
  moved,
  rowsOf,
} from './geometry.js';

const PAGE_BYTES = 4096;
const HUES: readonly Hue[] = ['zero', 'shared', 'own', 'damaged'];

interface Mapped {
  readonly region: string;
  readonly sizeBytes: number;
  readonly fromPage: number;
  readonly pages: number;
  readonly pagesPerCell: number;
  readonly zeroPages: number;
  readonly sharedPages: number;
  readonly ownPages: number;
  readonly damagedPages: number;
  readonly changedPages: number | null;
  readonly cells: Uint8Array;
}

interface Props {
  readonly snapshot: string;
  readonly region: string;
  /** Compared with this snapshot. Null: with the parent. */
  readonly base: string | null;
}

async function fetchMap({ snapshot, region, base }: Props, part: string): Promise<Mapped> {
  const query = new URLSearchParams({
    region,
    maxCells: String(MAX_CELLS),
    ...(base === null ? {} : { base }),
  });
  const response = await request(`/v1/snapshots/${snapshot}/map?${query}${part}`);
  const about = JSON.parse(response.headers.get('livesnap-page-map')!);
  return { ...about, cells: new Uint8Array(await response.arrayBuffer()) };
}

/** Has a `key` of the snapshot and the region: what was opened in one is nothing in another. */
export function PageMap(props: Props) {
  const { base } = props;
  /** The last one stays until the next has come, so that the keyboard stays in it. */
  const [map, setMap] = useState<Mapped | null>(null);
  const [state, setState] = useState<'reading' | 'read' | 'failed'>('reading');
  const [isTable, setTable] = useState(false);
  /** The first page of the part that is shown alone. */
  const [part, setPart] = useState<number | null>(null);
  /** Where the cursor is, in the whole region and in its parts. */
  const [page, setPage] = useState(0);
  const holder = useRef<HTMLDivElement>(null);
  const wasOpened = useRef(false);
  useEffect(() => {
    let isCurrent = true;
    setState('reading');
    const query = part === null ? '' : `&fromPage=${part}&pages=${COLUMNS}`;
    void attempt(() => fetchMap(props, query)).then((found) => {
      if (!isCurrent) return;
      if (found !== null) setMap(found);
      setState(found === null ? 'failed' : 'read');
    });
    return () => {
      isCurrent = false;
    };
  }, [base, part]);
  // The button that opened a part may be gone.
  useEffect(() => {
    if (!wasOpened.current || document.activeElement !== document.body) return;
    (holder.current?.querySelector<HTMLElement>('.map') ?? holder.current)?.focus({ preventScroll: true });
  }, [map]);
  const show = (fromPage: number | null): void => {
    wasOpened.current = true;
    if (fromPage !== null && (page < fromPage || page >= fromPage + COLUMNS)) setPage(fromPage);
    setPart(fromPage);
  };

  if (state === 'failed') return <p class="quiet">The pages could not be read.</p>;
  if (map === null) return <p class="quiet">Reading the pages …</p>;
  const counts: readonly [Hue | 'changed', number | null][] = [
    ['zero', map.zeroPages],
    ['shared', map.sharedPages],
    ['own', map.ownPages],
    ['damaged', map.damagedPages],
    ['changed', map.changedPages],
  ];
  const view = { map, page, onMove: setPage, onShow: show, isPart: part !== null };
  return (
    <div ref={holder} tabIndex={-1} aria-busy={state === 'reading'}>
      <div class="legend">
        {counts.map(
          ([name, pages]) =>
            pages !== null && (
              <span key={name} class={name === 'damaged' && pages > 0 ? 'bad' : ''}>
                <i class={`hue-${name}`} aria-hidden="true" />
                {name} <span class="num">{formatCount(pages)}</span>{' '}
                <span class="num quiet">{formatBytes(pages * PAGE_BYTES)}</span>
              </span>
            ),
        )}
        <span class="tools">
          {part !== null && (
            <button type="button" onClick={() => show(null)}>
              Whole region
            </button>
          )}{' '}
          <button type="button" aria-pressed={isTable} onClick={() => setTable(!isTable)}>
            Table
          </button>
        </span>
      </div>
      {isTable ? <MapTable {...view} /> : <Picture {...view} />}
    </div>
  );
}

interface ViewProps {
  readonly map: Mapped;
  /** The page with the cursor. */
  readonly page: number;
  readonly onMove: (page: number) => void;
  /** A block is to be shown alone, or (null) the whole region. */
  readonly onShow: (fromPage: number | null) => void;
  readonly isPart: boolean;
}

function Picture({ map, page: wanted, onMove, onShow, isPart }: ViewProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { cells, pagesPerCell, fromPage } = map;
  const rows = rowsOf(cells.length);
  useEffect(() => {
    const element = canvas.current!;
    const draw = (): void => paint(element, cells);
    draw();
    const scheme = matchMedia('(prefers-color-scheme: dark)');
    scheme.addEventListener('change', draw);
    // Also told when the window moves to a screen with smaller pixels, if the width of the page changes by that.
    const size = new ResizeObserver(draw);
    size.observe(element);
    return () => {
      scheme.removeEventListener('change', draw);
      size.disconnect();
    };
  }, [cells]);
  const cell = cellOf(wanted, fromPage, pagesPerCell, cells.length);
  const page = fromPage + cell * pagesPerCell;
  const move = (to: number): void => onMove(fromPage + to * pagesPerCell);
  const cellAt = (event: MouseEvent): number => {
    const { left, top, width, height } = canvas.current!.getBoundingClientRect();
    const column = Math.floor(((event.clientX - left) / width) * COLUMNS);
    const row = Math.floor(((event.clientY - top) / height) * rows);
    return Math.max(0, Math.min(cells.length - 1, row * COLUMNS + column));
  };
  const open = (of: number): void => {
    if (pagesPerCell > 1 || map.pages > COLUMNS)
      onShow(Math.floor((fromPage + of * pagesPerCell) / COLUMNS) * COLUMNS);
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const next = moved(cell, event.key, cells.length);
    if (event.key === 'Enter') open(cell);
    else if (event.key === 'Escape' && isPart) onShow(null);
    else if (next !== cell) move(next);
    else return; // the page may have a use for it
    event.preventDefault();
    event.stopPropagation();
  };
  const column = cell % COLUMNS;
  const row = Math.floor(cell / COLUMNS);
  // A row has at least two pixels, and one block alone a band that can be seen.
  const height = Math.max(rows * (rows > 128 ? 2 : 4), 40);
  return (
    <div>
      <p class="num" aria-live="polite">
        page {formatCount(page)} · 0x{(page * PAGE_BYTES).toString(16)} ·{' '}
        {cells.length === 0 ? 'no pages' : describeCell(cells[cell]!, pagesPerCell)}
      </p>
      <div
        class="map"
        role="application"
        aria-label="Map of pages. Arrow keys move, Enter opens a block, and Table shows numbers."
        // biome-ignore lint/a11y/noNoninteractiveTabindex: the cursor of the map moves by keys.
        tabIndex={0}
        onKeyDown={onKeyDown}
      >
        <canvas
          ref={canvas}
          style={{ height: `${height}px` }}
          onMouseMove={(event) => move(cellAt(event))}
          onClick={(event) => open(cellAt(event))}
        />
        <span
          class="cursor"
          aria-hidden="true"
          style={{
            left: `${(100 * column) / COLUMNS}%`,
            top: `${(row * height) / Math.max(1, rows)}px`,
            width: `${100 / COLUMNS}%`,
            height: `${height / Math.max(1, rows)}px`,
          }}
        />
      </div>
    </div>
  );
}

/** A column is a pixel of the canvas; the browser enlarges them. */
function paint(canvas: HTMLCanvasElement, cells: Uint8Array): void {
  const style = getComputedStyle(document.documentElement);
  const colourOf = (name: string): number[] => rgb(style.getPropertyValue(`--${name}`));
  const text = colourOf('text');
  const colours = new Map(
    HUES.map((hue) => {
      const plain = colourOf(hue);
      return [hue, { plain, hatched: mixed(plain, text) }];
    }),
  );
  const columns = columnsFor(canvas.clientWidth * devicePixelRatio);
  canvas.width = columns;
  canvas.height = Math.max(1, rowsOf(cells.length));
  const context = canvas.getContext('2d')!;
  const image = context.createImageData(canvas.width, canvas.height);
  const shown = folded(cells, columns);
  for (let i = 0; i < shown.length; i++) {
    const cell = shown[i]!;
    const { plain, hatched } = colours.get(hueOf(cell))!;
    image.data.set(isHatched(cell, i % columns, Math.floor(i / columns)) ? hatched : plain, i * 4);
    image.data[i * 4 + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** `#rrggbb`. */
const rgb = (text: string): number[] =>
  [1, 3, 5].map((from) => Number.parseInt(text.trim().slice(from, from + 2), 16));

/** A hue stays to be seen where it is hatched. */
const mixed = (hue: number[], text: number[]): number[] =>
  hue.map((part, i) => Math.round(0.35 * part + 0.65 * text[i]!));

function MapTable({ map, onShow }: ViewProps) {
  const { cells, pagesPerCell, fromPage } = map;
  const unit = pagesPerCell === 1 ? 'pages' : `cells of ${pagesPerCell} pages`;
  return (
    <div class="scroll">
      <table class="pages num">
        <caption class="sr">
          Classes of {unit}, by blocks of {formatCount(COLUMNS * pagesPerCell)} pages
        </caption>
        <thead>
          <tr>
            {['from page', 'zero', 'shared', 'own', 'damaged', 'changed'].map((title) => (
              <th key={title} scope="col">
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {countsOf(cells, pagesPerCell, fromPage).map((of) => (
            <tr key={of.firstPage}>
              <th scope="row">
                <button type="button" class="plain" onClick={() => onShow(of.firstPage)}>
                  {formatCount(of.firstPage)}
                </button>
              </th>
              <td>{of.zero}</td>
              <td>{of.shared}</td>
              <td>{of.own}</td>
              <td class={of.damaged > 0 ? 'bad' : ''}>{of.damaged}</td>
              <td>{of.changed}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
