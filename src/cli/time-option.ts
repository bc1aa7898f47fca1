/** How lists show times: as an age, which people compare at a glance, or as the time itself. */
import { formatAgo, formatTime } from '../format.js';
import { parseWord } from './values.js';
import { valued } from './verb.js';

export const timeOption = valued(
  '--time <relative|absolute>',
  'Show times as ages (default) or as dates',
  parseWord('relative', 'absolute'),
);

/** For the cells of a table. All ages are those of one moment. Null: no time is known. */
export function timeFormatter(
  option: 'relative' | 'absolute' | undefined,
  nowMs = Date.now(),
): (iso: string | null) => string | null {
  return (iso) => {
    if (iso === null) return null;
    return option === 'absolute' ? formatTime(iso) : formatAgo(iso, nowMs);
  };
}

/** `2026-11-27 17:11:10 (2 minutes ago)`, where there is room. Null: no time is known. */
export const timeWithAge = (iso: string | null, nowMs = Date.now()): string | null =>
  iso === null ? null : `${formatTime(iso)} (${formatAgo(iso, nowMs)})`;
