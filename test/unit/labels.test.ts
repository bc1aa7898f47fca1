import assert from 'node:assert/strict';
import { LivesnapError } from '../../src/errors.js';
import { haveLabels, labels, parseLabel, requireLabels } from '../../src/labels.js';
import { passes } from '../../src/schema.js';

const isUsage = (error: unknown): boolean => error instanceof LivesnapError && error.code === 'USAGE';

describe('labels', () => {
  it('are parsed from key=value; a value may be empty or contain =', () => {
    assert.deepEqual(parseLabel('course=os'), ['course', 'os']);
    assert.deepEqual(parseLabel('a/b.c-d_e='), ['a/b.c-d_e', '']);
    assert.deepEqual(parseLabel('q=a=b'), ['q', 'a=b']);
  });

  for (const wrong of [
    '',
    '=',
    '=x',
    'x',
    'a b=c',
    '-a=b',
    'a-=b',
    'a=\n',
    'a=\ud800',
    `${'k'.repeat(64)}=`,
    `a=${'v'.repeat(256)}`,
  ])
    it(`refuse ${JSON.stringify(wrong).slice(0, 24)}`, () => {
      assert.throws(() => parseLabel(wrong), isUsage);
    });

  it('are checked in data from outside', () => {
    assert(passes(labels, { course: 'os' }));
    for (const wrong of [null, [], 'a=b', { a: 1 }, { 'a b': '' }, { a: '\u0007' }])
      assert(!passes(labels, wrong), JSON.stringify(wrong));
    const many = Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, '']));
    assert(!passes(labels, many));
    assert.throws(() => requireLabels(many), isUsage);
  });

  it('match a filter if they have each key with its value, or any value', () => {
    const all = { course: 'os', seat: '7' };
    assert(haveLabels(all, {}));
    assert(haveLabels(all, { course: 'os', seat: null }));
    assert(!haveLabels(all, { course: 'db' }));
    assert(!haveLabels(all, { toString: null }));
  });
});
