import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { DEFAULT_PROMPT, Starter } from '../../../src/machine/starter.js';

/** A starter, and what it has typed. */
class Bench {
  readonly typed: string[] = [];
  readonly logged: string[] = [];
  readonly starter: Starter;

  constructor(lines: readonly string[], prompt = DEFAULT_PROMPT, inLine = false) {
    this.starter = new Starter({
      lines,
      prompt,
      inLine,
      type: (bytes) => this.typed.push(Buffer.from(bytes).toString()),
      log: (sentence) => this.logged.push(sentence),
    });
  }

  say(text: string): this {
    this.starter.push(Buffer.from(text));
    return this;
  }

  /** Resolves when it has typed `count` lines. */
  async until(count: number): Promise<void> {
    while (this.typed.length < count) await sleep(5);
  }
}

describe('Starter', () => {
  it('types each line when the guest shows a prompt again', async () => {
    const b = new Bench(['root', 'secret', 'ls', '']);
    b.say('Welcome\r\nhost login: ');
    await b.until(1);
    b.say('root\r\nPassword: ');
    await b.until(2);
    b.say('\r\n\x1b[32mhost\x1b[0m:~# \x1b[6n');
    await b.until(3);
    b.say('ls\r\nfile\r\nhost:~# ');
    await b.until(4);
    assert.deepEqual(b.typed, ['root\r', 'secret\r', 'ls\r', '\r']);
    assert.deepEqual(b.starter.pending, []);
    await sleep(300);
    b.say('\r\n# ');
    await sleep(300);
    assert.equal(b.typed.length, 4, 'nothing is typed twice');
  });

  it('waits until a line that looks like a prompt is finished or stays', async () => {
    const b = new Bench(['a', 'b']);
    for (const part of ['cost: 5', '$ ', 'each\n', 'boot # ', 'of 4\n']) b.say(part);
    await sleep(300);
    assert.deepEqual(b.typed, []);
    b.say('# ');
    await b.until(1);
  });

  it('does not take the echo of its own line for a prompt', async () => {
    const b = new Bench(['echo $ ', 'next']);
    b.say('$ ');
    await b.until(1);
    b.say('echo $ ');
    await sleep(300);
    assert.equal(b.typed.length, 1);
    assert.equal(b.starter.inLine, true);
    b.say('\r\n$ ');
    await b.until(2);
  });

  it('types at finished lines too if the pattern matches them', () => {
    const b = new Bench(['one', 'two', 'three'], /^READY|^OK/);
    b.say('PROBE\nREADY\nTICK 1\nOK 1\n');
    assert.deepEqual(b.typed, ['one\r', 'two\r']);
    assert.deepEqual(b.starter.pending, ['three']);
  });

  it('continues within a line after a restore, and types nothing after the end', async () => {
    const b = new Bench(['x'], DEFAULT_PROMPT, true);
    b.say('$ ');
    await sleep(300);
    assert.deepEqual(b.typed, [], 'the line has the echo of an earlier one');
    b.say('\n$ ');
    b.starter.end();
    await sleep(300);
    assert.deepEqual(b.typed, []);
  });

  it('gives up a pattern that takes exponential time on what the guest writes', () => {
    const b = new Bench(['x'], /^(a+)+$/);
    const hostile = `${'a'.repeat(64)}!\n`;
    for (let i = 0; i < 5; i++) b.say(hostile);
    b.say('aaa\n');
    assert.deepEqual(b.typed, []);
    assert.deepEqual(b.starter.pending, ['x']);
    assert.equal(b.logged.length, 1, 'the user is told once');
    assert.match(b.logged[0]!, /the starter file is not typed any further/);
  });

  it('tests only the end of a long line', () => {
    const b = new Bench(['x', 'y'], /a.*READY$/);
    b.say(`a${'b'.repeat(2000)}READY\n`);
    assert.deepEqual(b.typed, []);
    b.say(`a${'b'.repeat(500)}READY\n`);
    assert.deepEqual(b.typed, ['x\r']);
  });
});
