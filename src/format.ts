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
  const number = count.toLocaleString('en');
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

/** `a, b`. Null: there is none. */
export const formatTags = (tags: readonly string[]): string | null =>
  tags.length === 0 ? null : tags.join(', ');

/** The part of an ID that people see. Any unique prefix names the snapshot. */
export const shortId = (id: string): string => id.slice(0, 12);
