/** How damage is told: the file inside the store, the offset of what is wrong, and why. */
import { LivesnapError } from '../../errors.js';

export class DamageError extends LivesnapError {
  /** Relative to the store's directory. */
  readonly file: string;
  /** In bytes; null when the whole file is meant. */
  readonly offset: number | null;
  /** The sentence without file and offset. */
  readonly why: string;

  constructor(file: string, offset: number | null, why: string, snapshot?: string) {
    const where = offset === null ? file : `${file} at offset ${offset}`;
    super('DAMAGED', `${snapshot ? `snapshot ${snapshot} is damaged: ` : ''}${where}: ${why}`, {
      hint: 'Run livesnap check --read-data to see everything that is damaged, livesnap repair to heal what can be.',
    });
    this.file = file;
    this.offset = offset;
    this.why = why;
  }

  /** The same damage, with the snapshot that was being read named. */
  in(snapshot: string): DamageError {
    return new DamageError(this.file, this.offset, this.why, snapshot);
  }
}

/** A chunk that repair has found lost: its identity is kept, so that a later save of the same page can heal it. */
export class LostChunkError extends DamageError {
  constructor(file: string, offset: number) {
    super(file, offset, 'chunks were lost here');
  }
}
