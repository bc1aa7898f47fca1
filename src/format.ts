/**
 * Values as people read them: sizes, durations, counts, times and IDs. Nothing else formats them.
 */

/** `256 MiB`, `1.5 GiB`: binary units, three digits at most. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 999.5 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || Math.abs(value) >= 99.95 || Number.isInteger(value) ? 0 : 1;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** `0.4 ms`, `12 ms`, `1.2 s`, `61 s`. */
export const formatDuration = (ms: number): string =>
  ms >= 10_000
    ? `${(ms / 1000).toFixed(0)} s`
    : ms >= 1000
      ? `${(ms / 1000).toFixed(1)} s`
      : `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;

/** `49,120`. With a noun: `1 chunk`, `2 chunks`. */
export function formatCount(count: number, noun?: string): string {
  // Not toLocaleString: it loads ICU, which takes as long as a small command.
  const number = String(count).replace(/\B(?=(\d{3})+$)/g, ',');
  return noun === undefined ? number : `${number} ${nounFor(count, noun)}`;
}

/** The noun for a list of things: `tag` for one, `tags` for any other number. */
export const nounFor = (count: number, noun: string): string => (count === 1 ? noun : `${noun}s`);

/** `3.2 : 1`, `120 : 1`. */
export const formatRatio = (ratio: number): string => `${ratio.toFixed(ratio < 100 ? 1 : 0)} : 1`;

/** Local time to the second. */
export function formatTime(iso: string): string {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return iso;
  const two = (n: number) => String(n).padStart(2, '0');
  const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  return `${day} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

const SECOND_MS = 1000;
const DAY_MS = 86_400 * SECOND_MS;
const AGE_UNITS: readonly (readonly [ms: number, noun: string])[] = [
  [365 * DAY_MS, 'year'],
  [30 * DAY_MS, 'month'],
  [7 * DAY_MS, 'week'],
  [DAY_MS, 'day'],
  [3_600 * SECOND_MS, 'hour'],
  [60 * SECOND_MS, 'minute'],
];

/**
 * `2 days ago`, `119 seconds ago`, `just now`, `in 9 minutes`: in the largest unit of which there are two, so that it is
 * off by less than half.
 */
export function formatAgo(iso: string, nowMs: number): string {
  const ms = nowMs - Date.parse(iso);
  if (Number.isNaN(ms)) return iso;
  const distanceMs = Math.abs(ms);
  if (distanceMs < SECOND_MS) return 'just now';
  const [unitMs, noun] = AGE_UNITS.find(([unit]) => distanceMs >= 2 * unit) ?? [SECOND_MS, 'second'];
  const count = formatCount(Math.floor(distanceMs / unitMs), noun);
  return ms > 0 ? `${count} ago` : `in ${count}`;
}

/** `a, b`. Null: there is none. */
export const formatTags = (tags: readonly string[]): string | null =>
  tags.length === 0 ? null : tags.join(', ');

/** The part of an ID that people see. Any unique prefix names the snapshot. */
export const shortId = (id: string): string => id.slice(0, 12);
