import assert from 'node:assert/strict';
import {
  anything,
  base64,
  byte,
  bytes,
  type Check,
  type Checked,
  flag,
  integer,
  list,
  nullable,
  object,
  oneOf,
  optional,
  parse,
  passes,
  SchemaError,
  satisfying,
  text,
  unsigned,
} from '../../src/schema.js';

/** What is wrong with a value, as the error says it; null when it passes. */
function wrong(check: Check<unknown>, value: unknown): string | null {
  try {
    check(value, '');
    return null;
  } catch (error) {
    assert(error instanceof SchemaError);
    return error.message;
  }
}

describe('schema', () => {
  const CASES: [string, Check<unknown>, unknown[], unknown[]][] = [
    ['integer', integer(1, 16), [1, 16], [0, 17, 1.5, Number.NaN, '1', 1n, null, undefined, [1]]],
    ['byte', byte, [0, 255], [-1, 256]],
    ['unsigned', unsigned(64), [0n, 2n ** 64n - 1n], [-1n, 2n ** 64n, 1, '1', undefined]],
    ['flag', flag, [true, false], [0, 1, 'true', null, undefined]],
    ['text', text(), ['', 'a'], [1, null, undefined, ['a']]],
    ['text with a pattern', text(/^[a-f]+$/), ['abc'], ['', 'g', 7]],
    ['oneOf', oneOf('start', 'restore'), ['start', 'restore'], ['stop', '', null, undefined]],
    [
      'bytes',
      bytes(2, 3),
      [new Uint8Array(2), Buffer.alloc(3)],
      [new Uint8Array(1), new Uint8Array(4), [1, 2], 'ab'],
    ],
    ['base64', base64(1, 2), ['AA==', 'AAA='], ['', 'AAAA', 'AA', 'AB==', 'A===', 5]],
    ['nullable', nullable(flag), [null, true], [undefined, 0]],
    ['optional', optional(flag), [undefined, true], [null, 0]],
    ['anything', anything, [undefined, null, {}, 1], []],
    ['satisfying', satisfying(integer(), (n) => n % 2 === 0, 'is odd'), [0, 2], [1, '2']],
    ['list', list(byte, 1, 2), [[1], [1, 2]], [[], [1, 2, 3], ['1'], {}, { length: 1 }, undefined]],
    [
      'object',
      object({ a: byte, b: optional(flag) }),
      [{ a: 1 }, { a: 1, b: true }],
      [{}, { a: 1, c: 1 }, [], null, { a: '1' }],
    ],
    [
      'object that ignores other fields',
      object({ a: byte }, { others: 'ignore' }),
      [{ a: 1, c: 1 }],
      [{ c: 1 }],
    ],
  ];
  for (const [name, check, right, bad] of CASES) {
    it(`${name} accepts what it describes and refuses the rest`, () => {
      for (const value of right) assert.equal(wrong(check, value), null, String(value));
      for (const value of bad) {
        assert.notEqual(wrong(check, value), null, String(value));
        assert.equal(passes(check, value), false);
      }
    });
  }

  it('gives the value itself back', () => {
    const value = { list: [{ name: 'a' }] };
    assert.equal(object({ list: list(object({ name: text() }), 0, 9) })(value, ''), value);
  });

  it('names the field that is wrong', () => {
    const check = object({ vcpus: list(object({ regs: object({ rip: unsigned(64) }) }), 1, 4) });
    assert.equal(
      wrong(check, { vcpus: [{ regs: { rip: 0n } }, { regs: {} }] }),
      'vcpus[1].regs.rip is missing',
    );
    assert.equal(wrong(check, { vcpus: [] }), 'vcpus has 0 items, not 1 to 4');
    assert.equal(wrong(check, []), 'the value is not an object');
    assert.equal(
      wrong(check, { vcpus: [{ regs: { rip: 0n, x: 1 } }] }),
      'vcpus[0].regs."x" is not a known field',
    );
  });

  it('shows only the beginning of an unknown name', () => {
    assert((wrong(object({}), { [`\u202e${'x'.repeat(5000)}`]: 1 }) ?? '').length < 100);
  });

  it('takes no field from a prototype', () => {
    const check = object(
      { constructor: anything, toString: optional(anything), a: byte },
      { others: 'ignore' },
    );
    assert.equal(wrong(check, Object.create({ a: 1 })), 'a is missing');
    assert.equal(wrong(check, JSON.parse('{"__proto__": {"a": 1}}')), 'a is missing');
  });

  it('lets the caller make the error', () => {
    const cause = new Error('mine');
    assert.throws(
      () => parse(byte, 256, ({ problem }) => Object.assign(cause, { problem })),
      (error) =>
        error === cause && (error as { problem?: string }).problem === 'is not an integer from 0 to 255',
    );
  });

  it('knows the type of what it checked', () => {
    const check = object({ kind: oneOf('machine', 'file'), tag: nullable(text()) });
    const typed: Checked<typeof check> = { kind: 'file', tag: null };
    assert.equal(check(typed, ''), typed);
  });
});
