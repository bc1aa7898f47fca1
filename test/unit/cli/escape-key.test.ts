import assert from 'node:assert/strict';
import { EscapeKey } from '../../../src/cli/escape-key.js';

/** Types the pieces one after another. Returns what was sent, and the piece that detached. */
function type(...pieces: string[]): { sent: string; detachedAt: number | null } {
  const key = new EscapeKey();
  let sent = '';
  for (const [i, piece] of pieces.entries()) {
    const { bytes, detach } = key.take(Buffer.from(piece, 'latin1'));
    sent += Buffer.from(bytes).toString('latin1');
    if (detach) return { sent, detachedAt: i };
  }
  return { sent, detachedAt: null };
}

describe('the escape key', () => {
  it('passes other input through', () => {
    assert.deepEqual(type('ls -l\r', '\x03\xff\x00'), { sent: 'ls -l\r\x03\xff\x00', detachedAt: null });
  });
  it('detaches at Ctrl-A x, in one piece or two, and sends the input before it', () => {
    assert.deepEqual(type('ab\x01xcd'), { sent: 'ab', detachedAt: 0 });
    assert.deepEqual(type('ab\x01', 'x'), { sent: 'ab', detachedAt: 1 });
  });
  it('sends one Ctrl-A for two, and an x after them', () => {
    assert.deepEqual(type('\x01\x01x'), { sent: '\x01x', detachedAt: null });
    assert.deepEqual(type('\x01', '\x01', 'x'), { sent: '\x01x', detachedAt: null });
  });
  it('sends Ctrl-A together with any other key', () => {
    assert.deepEqual(type('\x01', 'q'), { sent: '\x01q', detachedAt: null });
  });
});
