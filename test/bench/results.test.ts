import assert from 'node:assert/strict';
import { type Figure, isMet, summarize } from '../../bench/harness/figure.js';
import { findWorse, type Results } from '../../bench/harness/results.js';

const figure = (values: number[], rest: Partial<Figure> = {}): Figure => ({
  ...{ name: 'a: b', unit: 'ms', values, reference: null, target: null, margin: 0.5 },
  ...rest,
});

const committed = (median: number, ratio: number | null): Results => ({
  host: { cpu: 'c', cores: 2, kvm: 'vmx', node: '20', fileSystem: 'ext4' },
  inputs: {
    generated: {
      'a: b': {
        ...{ unit: 'ms', rounds: 5, median, min: median, p90: median, max: median },
        ...{ reference: null, ratio, target: null, margin: 0.5 },
      },
    },
  },
});

describe('results of benchmarks', () => {
  it('summarize rounds by median, p90, smallest and largest', () => {
    assert.deepEqual(summarize([5, 1, 4, 2, 3]), { median: 3, min: 1, p90: 5, max: 5 });
  });

  it('a figure that is worse by more than its margin is named in one sentence', () => {
    assert.deepEqual(findWorse(committed(100, null), 'generated', [figure([149])]), []);
    const [sentence] = findWorse(committed(100, null), 'generated', [figure([151])]);
    assert.match(sentence!, /^a: b is 151 ms, and was 100: worse by more than 50%\.$/);
  });

  it('a figure with a reference is compared by its ratio, not by its time', () => {
    const slowHost = figure([400], { reference: { name: 'limit', values: [400] } });
    assert.deepEqual(findWorse(committed(100, 1), 'generated', [slowHost]), []);
    const slowProgram = figure([400], { reference: { name: 'limit', values: [200] } });
    assert.equal(findWorse(committed(100, 1), 'generated', [slowProgram]).length, 1);
  });

  it('a rate is worse when it is smaller', () => {
    assert.equal(findWorse(committed(2, null), 'generated', [figure([1], { isRate: true })]).length, 1);
    assert.deepEqual(findWorse(committed(2, null), 'generated', [figure([9], { isRate: true })]), []);
  });

  it('a figure or an input that was not committed passes', () => {
    assert.deepEqual(findWorse(committed(1, null), 'other', [figure([9])]), []);
    assert.deepEqual(findWorse(committed(1, null), 'generated', [figure([9], { name: 'new' })]), []);
  });

  it('a target is met by the ratio where there is a reference, and by the median otherwise', () => {
    assert.equal(isMet(figure([9])), null);
    assert.equal(isMet(figure([9], { target: 10 })), true);
    assert.equal(isMet(figure([9], { target: 10, isRate: true })), false);
    assert.equal(isMet(figure([9], { target: 2, reference: { name: 'limit', values: [3] } })), false);
  });
});
