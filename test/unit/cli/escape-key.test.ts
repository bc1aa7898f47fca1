import assert from 'node:assert/strict';
import { EscapeKey, KEYS_HELP } from '../../../src/cli/escape-key.js';

/** Types the pieces one after another. Returns what was taken: text for the guest, and actions as `<save>`. */
function type(...pieces: string[]): string {
  const key = new EscapeKey();
  return pieces
    .flatMap((piece) => key.take(Buffer.from(piece, 'latin1')))
    .map((taken) => (taken instanceof Uint8Array ? Buffer.from(taken).toString('latin1') : `<${taken}>`))
    .join('');
}

describe('the escape key', () => {
  it('passes other input through', () => {
    assert.equal(type('ls -l\r', '\x03\xff\x00'), 'ls -l\r\x03\xff\x00');
  });
  it('detaches at Ctrl-A x and Ctrl-A d, in one piece or two, after the input before it', () => {
    assert.equal(type('ab\x01x'), 'ab<detach>');
    assert.equal(type('ab\x01', 'd'), 'ab<detach>');
  });
  it('saves at Ctrl-A s and helps at Ctrl-A ?, and goes on with the input', () => {
    assert.equal(type('a\x01sb\x01', '?c'), 'a<save>b<help>c');
  });
  it('sends one Ctrl-A for two, and an x after them', () => {
    assert.equal(type('\x01\x01x'), '\x01x');
    assert.equal(type('\x01', '\x01', 'x'), '\x01x');
  });
  it('sends Ctrl-A together with any other key', () => {
    assert.equal(type('\x01', 'q'), '\x01q');
  });
  it('lists every key in its help', () => {
    for (const key of ['d', 'x', 's', '?', 'Ctrl-A'])
      assert.match(KEYS_HELP, new RegExp(`(Ctrl-A|or) ${key === '?' ? '\\?' : key} `));
  });
});
