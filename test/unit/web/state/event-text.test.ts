import assert from 'node:assert/strict';
import { EventText } from '../../../../src/web/state/event-text.js';

describe('the parser of events', () => {
  const text =
    'id: a-1\nevent: state\ndata: {"x":1}\n\n: still here\n\nevent: usage\ndata: {}\n\nid: a-2\nevent: job\nda';

  it('gives the events of a stream, without its comments', () => {
    assert.deepEqual(new EventText().push(`${text}ta: 2\n\n`), [
      { id: 'a-1', type: 'state', data: '{"x":1}' },
      { id: null, type: 'usage', data: '{}' },
      { id: 'a-2', type: 'job', data: '2' },
    ]);
  });

  it('gives the same, wherever the stream is cut', () => {
    const whole = new EventText().push(`${text}ta: 2\n\n`);
    for (let size = 1; size < 20; size++) {
      const events = new EventText();
      const found = [];
      for (let from = 0; from < text.length; from += size)
        found.push(...events.push(text.slice(from, from + size)));
      assert.deepEqual([...found, ...events.push('ta: 2\n\n')], whole);
    }
  });
});
