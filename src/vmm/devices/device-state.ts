/**
 * The check of a saved device: its name, its version, and exactly the fields that the device saves, each of its type
 * and range.
 */
import { type Check, integer, object, oneOf, SchemaError } from '../../schema.js';
import type { DeviceState } from './device.js';

/** One check for every field that a state has besides its device and version. */
export type FieldChecks<State extends DeviceState> = {
  readonly [K in Exclude<keyof State, keyof DeviceState>]: Check<State[K]>;
};

export const deviceState = <State extends DeviceState>(
  device: string,
  version: number,
  fields: FieldChecks<State>,
): Check<State> =>
  object({
    device: oneOf(device),
    version: versionCheck(version),
    ...(fields as Record<string, Check<unknown>>),
  }) as Check<unknown> as Check<State>;

/** A version number; the error names both when it is another one. */
export const versionCheck =
  (known: number): Check<number> =>
  (value, path) => {
    const version = integer()(value, path);
    if (version !== known) throw new SchemaError(path, `is ${version}; this livesnap reads version ${known}`);
    return version;
  };

export const encodeBytes = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
export const decodeBytes = (text: string): Buffer => Buffer.from(text, 'base64');
