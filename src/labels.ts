/**
 * Labels: pairs of key and value that users give a machine. Its snapshots have them too, and a machine that is restored
 * from one. Lists are filtered by them.
 */
import { LivesnapError } from './errors.js';
import { type Check, isRecord, passes, SchemaError } from './schema.js';

export type Labels = Readonly<Record<string, string>>;

const KEY = /^[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$/;
/** No control character, and no half of a surrogate pair. */
const VALUE = /^[^\p{Control}\p{Surrogate}]{0,255}$/u;
const MAX_LABELS = 64;

/** Labels in data from outside: in a request, a snapshot or a record. */
export const labels: Check<Labels> = (value, path) => {
  if (!isRecord(value)) throw new SchemaError(path, 'is not an object of labels');
  const all = Object.entries(value);
  if (all.length > MAX_LABELS) throw new SchemaError(path, `has more than ${MAX_LABELS} labels`);
  for (const [key, text] of all)
    if (!KEY.test(key) || typeof text !== 'string' || !VALUE.test(text))
      throw new SchemaError(path, `has the label ${JSON.stringify(key).slice(0, 80)}, which is not valid`);
  return value as Labels;
};

/** Labels that a user gave. Errors: USAGE. */
export function requireLabels(given: Labels): Labels {
  if (passes(labels, given)) return given;
  throw new LivesnapError('USAGE', 'the labels are not valid', {
    hint: `A machine has at most ${MAX_LABELS} labels. ${LABEL_HINT}`,
  });
}

const LABEL_HINT =
  'A key has 1 to 63 letters, digits, dots, underscores, hyphens and slashes, and a value at most 255 characters. Example: course=os.';

/** `key=value`. Errors: USAGE. */
export function parseLabel(text: string): readonly [key: string, value: string] {
  const at = text.indexOf('=');
  const [key, value] = [text.slice(0, Math.max(at, 0)), text.slice(at + 1)];
  if (at > 0 && KEY.test(key) && VALUE.test(value)) return [key, value];
  throw new LivesnapError('USAGE', `${JSON.stringify(text)} is not a label`, { hint: LABEL_HINT });
}

/** Whether the labels have all of `wanted`. A wanted value of null stands for any value. */
export const haveLabels = (all: Labels, wanted: Readonly<Record<string, string | null>>): boolean =>
  Object.entries(wanted).every(
    ([key, value]) => Object.hasOwn(all, key) && (value === null || all[key] === value),
  );
