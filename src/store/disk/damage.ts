/** The error for damage in a store: which file, at which offset, and why. */
import { LivesnapError } from '../../errors.js';

export class DamageError extends LivesnapError {
  /** Relative to the store's directory. */
  readonly file: string;
  /** In bytes; null: the whole file. */
  readonly offset: number | null;
  /** The message without file and offset. */
  readonly why: string;

  constructor(file: string, offset: number | null, why: string, snapshot?: string) {
    const where = offset === null ? file : `${file} at offset ${offset}`;
    super('DAMAGED', `${snapshot ? `snapshot ${snapshot} is damaged: ` : ''}${where}: ${why}`, {
      hint: 'livesnap check --read-data lists all damage; livesnap repair heals it where it can.',
    });
    this.file = file;
    this.offset = offset;
    this.why = why;
  }

  /** The same damage, with the name of the snapshot that was being read. */
  in(snapshot: string): DamageError {
    return new DamageError(this.file, this.offset, this.why, snapshot);
  }
}

/** A chunk that repair has marked as lost. Its fingerprint is kept, so that a later save of the same page can heal it. */
export class LostChunkError extends DamageError {
  constructor(file: string, offset: number) {
    super(file, offset, 'chunks were lost here');
  }
}
