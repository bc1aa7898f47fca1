/**
 * Numbers for packs and segments that this thread has reserved and not used. A small save takes one, and a transaction
 * for each would cost it an fsync. A number that is lost with its process leaves a gap, which is legal.
 *
 * Invariants:
 * - A number is handed out once.
 * - A number comes only from the database that is the store's index now. Repair makes a new one, whose next number may be
 *   below those that the old one has reserved.
 */
import { statSync } from 'node:fs';
import { at, DATABASE } from '../disk/layout.js';
import type { Index } from './index-database.js';

/** Reserved by one transaction. */
const RESERVED_AT_ONCE = 16;
/** Stores that have a stock at the same time. The oldest stock is dropped. */
const MAX_STOCKS = 4;

interface Stock {
  /** Of the database that the numbers are from. */
  readonly identity: string;
  readonly numbers: number[];
}

const stocks = new Map<string, Stock>();

/**
 * A number that was never given to a pack or segment. The caller holds `lock`, so that repair cannot replace the index
 * meanwhile. Errors: NO_SPACE, those of the index.
 */
export function takeNumber({ dir, index }: { readonly dir: string; readonly index: Index }): number {
  const { dev, ino, birthtimeNs } = statSync(at(dir, DATABASE), { bigint: true });
  const identity = `${dev} ${ino} ${birthtimeNs}`;
  const known = stocks.get(dir);
  // A database whose next number is not above the stock was put in the old one's place.
  const isValid = known?.identity === identity && index.nextNumber() > (known.numbers.at(-1) ?? 0);
  if (isValid && known.numbers.length > 0) return known.numbers.shift()!;
  const [number, ...numbers] = index.reserveNumbers(RESERVED_AT_ONCE) as [number, ...number[]];
  stocks.delete(dir);
  stocks.set(dir, { identity, numbers });
  for (const oldest of stocks.keys()) if (stocks.size > MAX_STOCKS) stocks.delete(oldest);
  return number;
}
