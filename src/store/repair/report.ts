/** The report of a repair: what it did and found, as sentences for the user. */
import { QUARANTINE } from '../disk/layout.js';
import { quarantine } from './quarantine.js';

export class RepairReport {
  readonly actions: string[] = [];

  constructor(readonly dir: string) {}

  add(sentence: string): void {
    this.actions.push(sentence);
  }

  /** Moves a file of the store to quarantine/ and reports why. */
  quarantine(file: string, why: string): void {
    quarantine(this.dir, file);
    this.add(`${file} was moved to ${QUARANTINE}/: ${why}.`);
  }
}
