import assert from 'node:assert/strict';
import { Output, paceOf, taggedSentence } from '../../../src/cli/output.js';
import { printable } from '../../../src/cli/styled-text.js';

describe('the output', () => {
  it('tells the rate after a second, and the time left where the total is known', () => {
    const MIB = 1 << 20;
    assert.equal(paceOf(80 * MIB, 1040 * MIB, 999), '');
    assert.equal(paceOf(80 * MIB, 1040 * MIB, 1000), ', 80 MiB/s, 12 s left');
    assert.equal(paceOf(80 * MIB, null, 1000), ', 80 MiB/s');
    assert.equal(paceOf(0, 100, 1000), ', 0 B/s');
    assert.equal(paceOf(100, 90, 1000), ', 100 B/s, 0.0 ms left');
    assert.equal(paceOf(5, 20, 2000, 'things'), ', 2.5/s, 6.0 s left');
    assert.equal(paceOf(3000, 10_000, 3000, 'time'), '', 'time passes by itself');
  });

  it('names the snapshot that a tag is moved from', () => {
    const [id, other] = ['a'.repeat(32), 'b'.repeat(32)];
    assert.equal(taggedSentence(id, 'first', null), 'Tagged aaaaaaaaaaaa as first');
    assert.equal(
      taggedSentence(id, 'first', other),
      'Tagged aaaaaaaaaaaa as first (moved from bbbbbbbbbbbb)',
    );
  });

  it('escapes control characters in results, in messages, with --quiet and with --json', () => {
    const evil = 'a\x1b]0;x\x07\x9b2J\x7f\rb\u202ec\u2028\u{e0041}\udc00';
    const written = (print: () => void): string => {
      const { stdout, stderr } = process;
      const [toOut, toErr] = [stdout.write, stderr.write];
      let text = '';
      const take = (chunk: unknown): boolean => {
        text += chunk;
        return true;
      };
      stdout.write = take as typeof stdout.write;
      stderr.write = take as typeof stderr.write;
      try {
        print();
      } finally {
        stdout.write = toOut;
        stderr.write = toErr;
      }
      return text;
    };
    const prints: Record<string, () => void> = {
      human: () => new Output(false, false).result({}, () => `${evil}\nthen`),
      bare: () =>
        new Output(false, true).result(
          {},
          () => '',
          () => `${evil}\nthen`,
        ),
      remark: () => new Output(false, false).remark(`${evil}\nthen`),
    };
    const shown = `${printable(evil)}\nthen\n`;
    for (const [kind, print] of Object.entries(prints)) assert.equal(written(print), shown, kind);
    const json = written(() => new Output(true, false).result({ evil }, () => ''));
    assert.doesNotMatch(json.trimEnd(), /[\p{Cc}\p{Cf}\p{Zl}\p{Cs}]/u);
    assert.deepEqual(JSON.parse(json), { evil });
  });
});
