import assert from 'node:assert/strict';
import { LiveLines } from '../../../src/cli/live-lines.js';

describe('lines that change in place', () => {
  it('are written over the earlier ones, and not more often than is seen', () => {
    let nowMs = 0;
    const written: string[] = [];
    const view = new LiveLines({ write: (text: string) => written.push(text) > 0 } as never, () => nowMs);
    view.show(['a 1', 'b 1']);
    view.show(['a 2', 'b 1']);
    nowMs = 50;
    view.show(['a 3', 'b 2']);
    assert.deepEqual(written, ['\ra 1\x1b[K\n\rb 1\x1b[K\n', '\x1b[2A\ra 3\x1b[K\n\rb 2\x1b[K\n']);
  });
});
