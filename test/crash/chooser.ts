/** Seeded choices. */
import { seeded } from '../store/scratch.js';

/** Makes the same choices again for the same seed. */
export class Chooser {
  readonly next: () => number;

  constructor(readonly seed: number) {
    this.next = seeded(seed);
  }

  /** An integer from 0 to limit − 1. */
  below(limit: number): number {
    return this.next() % limit;
  }

  /** True in this part of all cases. */
  chance(part: number): boolean {
    return this.next() / 2 ** 32 < part;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  /** `count` different elements, or all when there are fewer. */
  some<T>(from: readonly T[], count: number): T[] {
    const left = [...from];
    const picked: T[] = [];
    while (picked.length < count && left.length > 0) picked.push(left.splice(this.below(left.length), 1)[0]!);
    return picked;
  }
}
