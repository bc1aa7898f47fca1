/** A long list of rows of equal height. Only those near the screen are in the document. */
import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';

export const ROW_PX = 28;
const MARGIN_ROWS = 12;
/** Shorter lists are whole. */
const MIN_ROWS = 100;

interface Props {
  readonly count: number;
  readonly label: string;
  readonly row: (index: number) => ComponentChildren;
}

export function RowWindow({ count, label, row }: Props) {
  const list = useRef<HTMLUListElement>(null);
  const [range, setRange] = useState({ from: 0, to: Math.min(count, MIN_ROWS) });
  useEffect(() => {
    const look = (): void => {
      const top = list.current?.getBoundingClientRect().top ?? 0;
      const from = Math.max(0, Math.floor(-top / ROW_PX) - MARGIN_ROWS);
      const to = Math.min(count, Math.ceil((innerHeight - top) / ROW_PX) + MARGIN_ROWS);
      const whole = count <= MIN_ROWS;
      setRange((old) => {
        const next = whole ? { from: 0, to: count } : { from, to: Math.max(from, to) };
        return old.from === next.from && old.to === next.to ? old : next;
      });
    };
    look();
    addEventListener('scroll', look, { passive: true });
    addEventListener('resize', look);
    return () => {
      removeEventListener('scroll', look);
      removeEventListener('resize', look);
    };
  }, [count]);
  const shown = [];
  for (let i = Math.min(range.from, count); i < Math.min(range.to, count); i++) shown.push(row(i));
  return (
    <ul class="plain-list window" ref={list} aria-label={label} style={{ height: `${count * ROW_PX}px` }}>
      {shown}
    </ul>
  );
}
