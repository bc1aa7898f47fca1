/** The error for damage in a store: which file, at which offset, why, and what of a snapshot cannot be read. */
import { LivesnapError } from '../../errors.js';
import type { Region } from '../../page-stream.js';
import { placesOf } from '../../region-places.js';

/** Bytes of a region, up to but not including `toBytes`. Null: it is not known which. */
export interface DamagedRange {
  readonly region: string;
  readonly fromBytes: number | null;
  readonly toBytes: number | null;
}

/** `length` bytes of a region from `fromBytes` on, as far as it reaches. `fromBytes` null: it is not known where. */
export const rangeOf = (
  { name, sizeBytes }: Region,
  fromBytes: number | null,
  length: number,
): DamagedRange => ({
  region: name,
  fromBytes,
  toBytes: fromBytes === null ? null : Math.min(sizeBytes, fromBytes + length),
});

export interface DamagedPart {
  readonly snapshot: string;
  /** Null: the snapshot's file, or data that several regions may need. */
  readonly range: DamagedRange | null;
}

function textOf({ snapshot, range }: DamagedPart): string {
  const damaged = `snapshot ${snapshot} is damaged: `;
  if (range === null) return damaged;
  const { region, fromBytes, toBytes } = range;
  const place = fromBytes === null || toBytes === null ? region : placesOf(region, fromBytes, toBytes);
  return `${damaged}${place} cannot be read: `;
}

export class DamageError extends LivesnapError {
  /** Relative to the store's directory. */
  readonly file: string;
  /** In bytes; null: the whole file. */
  readonly offset: number | null;
  /** The message without file and offset. */
  readonly why: string;
  /** Null: it is not known what was being read. */
  readonly part: DamagedPart | null;

  constructor(file: string, offset: number | null, why: string, part: DamagedPart | null = null) {
    const where = offset === null ? file : `${file} at offset ${offset}`;
    const { region = null, fromBytes = null, toBytes = null } = part?.range ?? {};
    super('DAMAGED', `${part === null ? '' : textOf(part)}${where}: ${why}`, {
      hint: 'livesnap check --read-data lists all damage; livesnap repair heals it where it can.',
      damage: { file, offset, snapshot: part?.snapshot ?? null, region, fromBytes, toBytes },
    });
    this.file = file;
    this.offset = offset;
    this.why = why;
    this.part = part;
  }

  /** The same damage, with what of a snapshot was being read. What is known already stays: the reader knew it better. */
  in(snapshot: string, range: DamagedRange | null = null): DamageError {
    return this.part === null ? new DamageError(this.file, this.offset, this.why, { snapshot, range }) : this;
  }
}

/** A chunk that repair has marked as lost. Its fingerprint is kept, so that a later save of the same page can heal it. */
export class LostChunkError extends DamageError {
  constructor(file: string, offset: number) {
    super(file, offset, 'chunks were lost here');
  }
}

/** The result of `read`, or null if it meets damage. A disk may fail to read what it has read before. */
export function nullIfDamaged<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (error instanceof DamageError) return null;
    throw error;
  }
}
