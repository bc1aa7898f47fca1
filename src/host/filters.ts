/**
 * Filters of lists: conditions that a user gives as KEY=VALUE.
 *
 * Invariant: conditions with the same key mean or, and conditions with different keys mean and.
 */
import { LivesnapError } from '../errors.js';

/** One condition. */
export interface Filter {
  readonly key: string;
}

/** How the value of a key is parsed. It throws or gives null if the value is not valid. */
export type FilterParser<F extends Filter> = (value: string | null) => F | null;

/** What a key stands for in messages: `name=PATTERN`. */
export type FilterForms<F extends Filter> = Readonly<
  Record<F['key'], { readonly form: string; readonly parse: FilterParser<F> }>
>;

/** Parses `KEY=VALUE`, or `KEY` for a key without a value. Errors: USAGE. */
export function parseFilterOf<F extends Filter>(forms: FilterForms<F>, text: string): F {
  const at = text.indexOf('=');
  const [key, value] = at < 0 ? [text, null] : [text.slice(0, at), text.slice(at + 1)];
  const known = Object.hasOwn(forms, key) ? forms[key as F['key']] : null;
  const filter = value === '' ? null : known?.parse(value);
  if (filter) return filter;
  const all = Object.values<{ form: string }>(forms).map(({ form }) => form);
  throw new LivesnapError('USAGE', `${JSON.stringify(text)} is not a filter`, {
    hint: `Use ${known ? known.form : `one of ${all.join(', ')}`}.`,
  });
}

/** Whether something passes all filters. `holds` tests one condition. */
export function passesAll<F extends Filter>(filters: readonly F[], holds: (filter: F) => boolean): boolean {
  const byKey = new Map<string, boolean>();
  for (const filter of filters) byKey.set(filter.key, (byKey.get(filter.key) ?? false) || holds(filter));
  return [...byKey.values()].every((any) => any);
}

/** `label=KEY` or `label=KEY=VALUE`. */
export interface LabelFilter {
  readonly key: 'label';
  readonly label: string;
  /** Null: any value. */
  readonly value: string | null;
}

export function parseLabelFilter(text: string | null): LabelFilter | null {
  const at = text?.indexOf('=') ?? -1;
  if (text === null || at === 0) return null;
  return at < 0
    ? { key: 'label', label: text, value: null }
    : { key: 'label', label: text.slice(0, at), value: text.slice(at + 1) };
}

/** The form of a filter by a pattern: `name=PATTERN`. */
export const patternForm = <K extends string>(key: K) => ({
  form: `${key}=PATTERN`,
  parse: (pattern: string | null) => (pattern === null ? null : { key, pattern }),
});

export const hasLabel = (
  labels: Readonly<Record<string, string>>,
  { label, value }: Pick<LabelFilter, 'label' | 'value'>,
): boolean => Object.hasOwn(labels, label) && (value === null || labels[label] === value);
