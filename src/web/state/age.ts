/** How long ago something was, for a column. Pure. Sentences have formatAgo of format.ts. */

const UNITS: readonly [ms: number, unit: string][] = [
  [365 * 86_400_000, 'y'],
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [60_000, 'min'],
  [1000, 's'],
];

/** `2 d`, `6 h`, `4 min`, `now`. */
export function formatAge(iso: string, nowMs: number): string {
  const ageMs = nowMs - Date.parse(iso);
  for (const [ms, unit] of UNITS) if (ageMs >= ms) return `${Math.floor(ageMs / ms)} ${unit}`;
  return 'now';
}
