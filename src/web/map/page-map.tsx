/** The pages of a region as a picture: one cell a page, or several; and as a table. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { formatBytes, formatCount } from '../../format.js';
import { request } from '../api.js';
import { attempt } from '../notice.js';
import {
  COLUMNS,
  countsOf,
  describeCell,
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

export function PageMap(props: Props) {
  const { snapshot, region, base } = props;
  const [map, setMap] = useState<Mapped | null>(null);
  const [isTable, setTable] = useState(false);
  /** The first page of the part that is shown alone. */
  const [part, setPart] = useState<number | null>(null);
  useEffect(() => {
    let isCurrent = true;
    setMap(null);
    const query = part === null ? '' : `&fromPage=${part}&pages=${COLUMNS}`;
    void attempt(() => fetchMap(props, query)).then((found) => {
      if (isCurrent) setMap(found);
    });
    return () => {
      isCurrent = false;
    };
  }, [snapshot, region, base, part]);
  useEffect(() => setPart(null), [snapshot, region, base]);

  if (map === null) return <p class="quiet">Reading the pages …</p>;
  const counts: readonly [Hue | 'changed', number | null][] = [
    ['zero', map.zeroPages],
    ['shared', map.sharedPages],
    ['own', map.ownPages],
    ['damaged', map.damagedPages],
    ['changed', map.changedPages],
  ];
  return (
    <div>
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
            <button type="button" onClick={() => setPart(null)}>
              Whole region
            </button>
          )}{' '}
          <button type="button" aria-pressed={isTable} onClick={() => setTable(!isTable)}>
            Table
          </button>
        </span>
      </div>
      {isTable ? <MapTable map={map} onOpen={setPart} /> : <Picture map={map} onOpen={setPart} />}
    </div>
  );
}

interface ViewProps {
  readonly map: Mapped;
  /** A block is to be shown alone. */
  readonly onOpen: (fromPage: number) => void;
}

function Picture({ map, onOpen }: ViewProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [cursor, setCursor] = useState(0);
  const { cells, pagesPerCell, fromPage } = map;
  const rows = rowsOf(cells.length);
  useEffect(() => {
    const draw = (): void => paint(canvas.current!, cells);
    draw();
    const scheme = matchMedia('(prefers-color-scheme: dark)');
    scheme.addEventListener('change', draw);
    return () => scheme.removeEventListener('change', draw);
  }, [cells]);
  const cell = Math.min(cursor, cells.length - 1);
  const page = fromPage + cell * pagesPerCell;
  const cellAt = (event: MouseEvent): number => {
    const { left, top, width, height } = canvas.current!.getBoundingClientRect();
    const column = Math.floor(((event.clientX - left) / width) * COLUMNS);
    const row = Math.floor(((event.clientY - top) / height) * rows);
    return Math.max(0, Math.min(cells.length - 1, row * COLUMNS + column));
  };
  const open = (of: number): void => {
    if (pagesPerCell > 1 || map.pages > COLUMNS)
      onOpen(Math.floor((fromPage + of * pagesPerCell) / COLUMNS) * COLUMNS);
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === 'Enter') open(cell);
    else {
      const next = moved(cell, event.key, cells.length);
      if (next === cell) return;
      setCursor(next);
    }
    event.preventDefault();
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
          width={COLUMNS}
          height={Math.max(1, rows)}
          style={{ height: `${height}px` }}
          onMouseMove={(event) => setCursor(cellAt(event))}
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

function paint(canvas: HTMLCanvasElement, cells: Uint8Array): void {
  const style = getComputedStyle(document.documentElement);
  const colours = new Map(HUES.map((hue) => [hue, rgb(style.getPropertyValue(`--${hue}`))]));
  const back = rgb(style.getPropertyValue('--back'));
  const context = canvas.getContext('2d')!;
  const image = context.createImageData(COLUMNS, Math.max(1, rowsOf(cells.length)));
  for (let i = 0; i < cells.length; i++) {
    const cell = cells[i]!;
    const colour = isHatched(cell, i % COLUMNS, Math.floor(i / COLUMNS)) ? back : colours.get(hueOf(cell))!;
    image.data.set(colour, i * 4);
    image.data[i * 4 + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** `#rrggbb`. */
const rgb = (text: string): number[] =>
  [1, 3, 5].map((from) => Number.parseInt(text.trim().slice(from, from + 2), 16));

function MapTable({ map, onOpen }: ViewProps) {
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
                <button type="button" class="plain" onClick={() => onOpen(of.firstPage)}>
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
