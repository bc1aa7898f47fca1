import assert from 'node:assert/strict';
import { editDistance, OTHER_WORDS, unknownVerb } from '../../../src/cli/unknown-verb.js';
import { ALIASES, VERBS } from '../../../src/cli/verbs.js';

const hintFor = (word: string): string | undefined => unknownVerb(word).hint;

const UNKNOWN = 'livesnap --help lists the verbs.';

describe('the answer to an unknown verb', () => {
  it('has commands for words of other tools, and only for words that are no verbs', () => {
    for (const [word, advice] of OTHER_WORDS) {
      assert.ok(!VERBS.has(word) && !ALIASES.has(word), `${word} is a verb`);
      assert.ok(advice.length > 0);
      for (const [, command] of advice)
        assert.ok(VERBS.has(command.split(' ')[0]!) || command === '--version', command);
      assert.doesNotMatch(hintFor(word)!, /Did you mean/);
    }
    assert.equal(hintFor('prune'), 'To delete unreferenced data: livesnap gc');
    assert.equal(hintFor('dmesg'), "To see a guest's output: livesnap logs MACHINE");
    assert.equal(hintFor('list'), 'To list machines: livesnap ps. To list snapshots: livesnap ls');
    for (const word of ['run', 'boot', 'exec', 'images', 'snapshots', 'cp', 'snapshot', 'suspend', 'destroy'])
      assert.match(hintFor(word)!, /^To .+: livesnap /);
  });

  it('corrects a word with one error, or with two if it has six letters or more', () => {
    for (const [word, verb] of [
      ['strat', 'start'],
      ['sav', 'save'],
      ['consol', 'console'],
      ['inspct', 'inspect'],
      ['resotre', 'restore'],
      ['rstroe', 'restore'],
    ] as const)
      assert.equal(hintFor(word), `Did you mean: livesnap ${verb}`, word);
    for (const word of ['svea', 'frobnicate', 'starting', 'x'.repeat(10_000), '__proto__', 'constructor'])
      assert.equal(hintFor(word), UNKNOWN, word);
  });

  it('corrects nothing if several verbs are as near', () => {
    // ls, ps and rm; tag is near to none of them.
    assert.equal(hintFor('s'), UNKNOWN);
    assert.equal(hintFor('rs'), UNKNOWN);
  });

  it('never suggests a verb that the help does not list', () => {
    assert.equal(hintFor('serve-stor'), UNKNOWN);
  });

  it('counts inserted, deleted, replaced and swapped letters', () => {
    for (const [a, b, distance] of [
      ['', '', 0],
      ['', 'ls', 2],
      ['save', 'save', 0],
      ['sve', 'save', 1],
      ['saave', 'save', 1],
      ['cave', 'save', 1],
      ['svae', 'save', 1],
      ['asev', 'save', 2],
      ['put', 'get', 2],
    ] as const)
      assert.deepEqual([editDistance(a, b), editDistance(b, a)], [distance, distance], `${a} ${b}`);
  });
});
