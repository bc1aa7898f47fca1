import assert from 'node:assert/strict';
import { LivesnapError } from '../../../src/errors.js';
import { parseStarterSet, starterLines } from '../../../src/host/starter-file.js';

const VALUES = new Map([
  ['username', 'root'],
  ['password', 'a{{ip}}=$&b'],
]);
const lines = (text: string | Uint8Array) => starterLines('/f', Buffer.from(text), VALUES);
const refuses = (work: () => unknown, message: RegExp): void => {
  assert.throws(work, (error) => {
    assert.ok(error instanceof LivesnapError && error.code === 'USAGE' && error.hint);
    assert.match(error.message, message);
    return true;
  });
};

describe('a starter file', () => {
  it('has lines, with values in place of placeholders', () => {
    assert.deepEqual(lines('{{username}}\r\n{{ password }}\n\nls {x} {{}\n'), [
      'root',
      'a{{ip}}=$&b',
      '',
      'ls {x} {{}',
    ]);
    assert.deepEqual(lines('one'), ['one']);
  });

  it('is refused if a placeholder is unknown or has no value', () => {
    refuses(() => lines('a\n{{host}}'), /^starter file \/f, line 2: unknown placeholder \{\{host\}\}$/);
    refuses(() => lines('{{ip}}'), /^starter file \/f, line 1: \{\{ip\}\} has no value$/);
    refuses(() => lines('{{toString}}'), /unknown placeholder/);
  });

  it('is refused if it is no text or too long', () => {
    refuses(() => lines(Uint8Array.of(0x61, 0xff)), /not UTF-8/);
    refuses(() => lines('x'.repeat(4001)), /line 1 is longer than 4000 bytes/);
    refuses(() => lines(`${'x'.repeat(3999)}\n`.repeat(17)), /longer than 65536 bytes/);
  });

  it('gets its values from key=value', () => {
    assert.deepEqual(parseStarterSet('password=a=b'), ['password', 'a=b']);
    assert.deepEqual(parseStarterSet('ip='), ['ip', '']);
    refuses(() => parseStarterSet('password'), /no =/);
    refuses(() => parseStarterSet('host=1'), /no placeholder "host"/);
    refuses(() => parseStarterSet('ip=1\n2'), /line end/);
  });
});
