/**
 * Checks the state of a device before it is believed: it may come from a snapshot that somebody else made.
 *
 * Invariant: what {@link checkState} returns has exactly the fields its device saves, each of its type and range.
 */
import { LivesnapError } from '../../errors.js';
import type { DeviceState } from './device.js';

/** Whether a field's value is one that its device can have saved. */
export type FieldCheck = (value: unknown) => boolean;

export const integerField =
  (min: number, max: number): FieldCheck =>
  (value) =>
    Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max;

export const byteField = integerField(0, 0xff);

export const flagField: FieldCheck = (value) => typeof value === 'boolean';

/** Bytes in base64, `minBytes` to `maxBytes` of them. */
export const bytesField =
  (minBytes: number, maxBytes: number): FieldCheck =>
  (value) => {
    if (typeof value !== 'string' || value.length > Math.ceil(maxBytes / 3) * 4) return false;
    const bytes = Buffer.from(value, 'base64');
    return bytes.length >= minBytes && bytes.length <= maxBytes && bytes.toString('base64') === value;
  };

export const encodeBytes = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
export const decodeBytes = (text: string): Buffer => Buffer.from(text, 'base64');

/** One check for every field that a state has besides its device and version. */
export type FieldChecks<State extends DeviceState> = Record<
  Exclude<keyof State, keyof DeviceState>,
  FieldCheck
>;

/** @throws LivesnapError BAD_STATE naming the device and what is wrong with its state */
export function checkState<State extends DeviceState>(
  state: unknown,
  device: string,
  version: number,
  checks: FieldChecks<State>,
): State {
  if (!isRecord(state) || state.device !== device) throw badState(`it is not the state of ${device}`);
  if (state.version !== version) {
    throw badState(
      `${device} has version ${String(state.version)}, and this livesnap reads version ${version}`,
      'Restore it with the livesnap that saved it, or a newer one.',
    );
  }
  const fields = checks as Record<string, FieldCheck>;
  for (const [name, check] of Object.entries(fields)) {
    if (!Object.hasOwn(state, name)) throw badState(`${device} lacks ${name}`);
    if (!check(state[name])) throw badState(`${device} has a ${name} that cannot be`);
  }
  for (const name of Object.keys(state)) {
    if (name !== 'device' && name !== 'version' && !Object.hasOwn(fields, name)) {
      throw badState(`${device} has a field ${JSON.stringify(name.slice(0, 40))} that is not known`);
    }
  }
  return state as unknown as State;
}

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export function badState(problem: string, hint?: string): LivesnapError {
  return new LivesnapError(
    'BAD_STATE',
    `the saved devices cannot be restored: ${problem}`,
    hint === undefined ? {} : { hint },
  );
}
