/** What an entry measures: figures, each with the values of its rounds, and what they are compared with. */

/** What a figure is compared with: a limit of the host, a peer, or another figure of the same run. */
export interface Reference {
  readonly name: string;
  readonly values: readonly number[];
}

export interface Figure {
  /** Unique in all entries: `ENTRY: what`. */
  readonly name: string;
  readonly unit: 'ms' | 'MB' | 'MiB' | 'µs' | 'GB/s' | 'MB/s' | 'threads' | '×';
  /** One for each round; at least 5, except for bytes, which do not vary. */
  readonly values: readonly number[];
  readonly reference: Reference | null;
  /** The target: the most that the ratio to the reference (or, without one, the median) may be. Null: none is set. */
  readonly target: number | null;
  /** How much worse than the committed median (or ratio) fails the guard: 0.5 is half as much again. */
  readonly margin: number;
  /** Whether larger is better, as for a rate. */
  readonly isRate?: boolean;
}

/** What an entry is given. */
export interface Context {
  /** An empty directory on the disk that is measured. It is removed afterwards. */
  readonly dir: string;
  /** Raw dumps of memory; empty: the image that a seed generates. */
  readonly images: readonly string[];
  readonly rounds: number;
}

/** A module in `bench/entries/`. */
export interface Entry {
  /** One line for the list of entries. */
  readonly summary: string;
  measure(context: Context): Promise<readonly Figure[]>;
}

/** The median, and the quantiles that show the spread. */
export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly p90: number;
  readonly max: number;
}

/** The least value that is at least as large as this part of the values. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)]!;
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

export const summarize = (values: readonly number[]): Summary => ({
  median: median(values),
  min: Math.min(...values),
  p90: quantile(values, 0.9),
  max: Math.max(...values),
});

/** The median divided by the reference's; null without a reference. */
export const ratioOf = ({ values, reference }: Figure): number | null =>
  reference === null ? null : median(values) / median(reference.values);

/** Whether the target is met; null without a target. */
export function isMet(figure: Figure): boolean | null {
  if (figure.target === null) return null;
  const value = ratioOf(figure) ?? median(figure.values);
  return figure.isRate ? value >= figure.target : value <= figure.target;
}

/** The milliseconds that `work` takes, `rounds` times. */
export async function milliseconds(rounds: number, work: () => unknown): Promise<number[]> {
  const all: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const begun = performance.now();
    await work();
    all.push(performance.now() - begun);
  }
  return all;
}
