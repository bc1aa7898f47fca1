import assert from 'node:assert/strict';
import { EscapeKey } from '../../../src/cli/escape-key.js';

/** Types the pieces one after another; what was sent, and the piece at which the console was left. */
function type(...pieces: string[]): { sent: string; leftAt: number | null } {
  const key = new EscapeKey();
  let sent = '';
  for (const [i, piece] of pieces.entries()) {
    const { bytes, leave } = key.take(Buffer.from(piece, 'latin1'));
    sent += Buffer.from(bytes).toString('latin1');
    if (leave) return { sent, leftAt: i };
  }
  return { sent, leftAt: null };
}

describe('EscapeKey', () => {
  it('sends what is typed', () => {
    assert.deepEqual(type('ls -l\r', '\x03\xff\x00'), { sent: 'ls -l\r\x03\xff\x00', leftAt: null });
  });
  it('leaves at Ctrl-A x, in one piece or two, sending what came before', () => {
    assert.deepEqual(type('ab\x01xcd'), { sent: 'ab', leftAt: 0 });
    assert.deepEqual(type('ab\x01', 'x'), { sent: 'ab', leftAt: 1 });
  });
  it('sends one Ctrl-A for two, and does not leave at an x after them', () => {
    assert.deepEqual(type('\x01\x01x'), { sent: '\x01x', leftAt: null });
    assert.deepEqual(type('\x01', '\x01', 'x'), { sent: '\x01x', leftAt: null });
  });
  it('sends a Ctrl-A that means nothing together with its key', () => {
    assert.deepEqual(type('\x01', 'q'), { sent: '\x01q', leftAt: null });
  });
});
