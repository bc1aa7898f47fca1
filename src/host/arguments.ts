/** Checks of arguments for programs in JavaScript, which have no compiler that refuses a wrong type. Pure. */
import { LivesnapError } from '../errors.js';

const usage = (message: string, hint: string): LivesnapError => new LivesnapError('USAGE', message, { hint });

const isObject = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Errors: USAGE (`options` is not an object). */
export function requireOptions(options: unknown, method: string, example: string): void {
  if (!isObject(options)) throw usage(`the options of ${method} are not an object`, `Example: ${example}.`);
}

/** Errors: USAGE (not a text, or an empty one). `hint` says what to give. */
export function requireText(value: unknown, what: string, hint: string): void {
  if (typeof value !== 'string' || value === '') throw usage(`${what} is not a text, or is empty`, hint);
}

/** Errors: USAGE (a list is given, and is none of objects). */
export function requireObjects(value: unknown, option: string, example: string): void {
  if (value !== undefined && !(Array.isArray(value) && value.every(isObject)))
    throw usage(`${option} is not a list of objects`, `Example: ${example}.`);
}

/** Errors: USAGE (not a number of milliseconds, or more than `most`). */
export function requireTimeout(timeoutMs: unknown, most: number): void {
  if (typeof timeoutMs !== 'number' || !(timeoutMs >= 0 && timeoutMs <= most))
    throw usage(
      `${String(timeoutMs)} is not a number of milliseconds for timeoutMs`,
      most === Number.POSITIVE_INFINITY ? 'Use a number of 0 or more.' : `Use a number from 0 to ${most}.`,
    );
}
