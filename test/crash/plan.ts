/** Plans for children, and the marks in which a child reports what became of each step. */
import type { Content } from './contents.js';

export type Step =
  | {
      readonly do: 'save' | 'put';
      readonly store: string;
      readonly content: Content;
      readonly tags: readonly string[];
    }
  | { readonly do: 'remove'; readonly store: string; readonly labels: readonly string[] }
  | {
      readonly do: 'tag';
      readonly store: string;
      readonly label: string;
      readonly tags: readonly string[];
    }
  /** Removes those of the tags that exist. */
  | { readonly do: 'untag'; readonly store: string; readonly tags: readonly string[] }
  | { readonly do: 'load'; readonly store: string; readonly label: string }
  | { readonly do: 'gc' | 'recompress' | 'check' | 'repair' | 'reopen'; readonly store: string }
  | CopyStep
  /** All steps at once. Each opens its stores itself. */
  | { readonly do: 'together'; readonly steps: readonly Step[] };

/** Copies a snapshot from one store to another. Either of them may request it. An export is a store, too. */
export interface CopyStep {
  readonly do: 'copy to' | 'copy from' | 'export' | 'import';
  /** The destination. */
  readonly store: string;
  readonly from: string;
  readonly label: string;
}

export const isCopyStep = (step: Step): step is CopyStep => 'from' in step;

/** The directory that a snapshot is exported to. */
export const exportOf = (label: string): string => `x-${label}`;
export const isExport = (store: string): boolean => store.startsWith('x-');

export interface Plan {
  readonly fingerprintBits: number;
  /** The snapshots that exist already. */
  readonly known: readonly Content[];
  readonly steps: readonly Step[];
}

/** A line in a child's file of marks, in JSON. `ns` is the host's monotonic clock. */
export type Mark = { readonly ns?: number } & MarkBody;

type MarkBody =
  | { readonly at: 'begin'; readonly step: Step }
  | { readonly at: 'done'; readonly step: Step }
  /** The step failed with one of livesnap's errors. */
  | { readonly at: 'failed'; readonly step: Step; readonly code: string; readonly message: string }
  /** The step threw anything else, or loaded wrong bytes. */
  | { readonly at: 'bug'; readonly step: Step | null; readonly message: string };

/** The stores that a step works with. */
export function storesOf(step: Step): string[] {
  if (step.do === 'together') return step.steps.flatMap(storesOf);
  return isCopyStep(step) ? [step.store, step.from] : [step.store];
}

export const parseMarks = (text: string): Mark[] =>
  text
    .split('\n')
    .filter((line) => line.endsWith('}'))
    .map((line) => JSON.parse(line) as Mark);
