/** How pages are read, and their output is compared. */
import assert from 'node:assert/strict';
import { invocations, patternOf, readPage } from './page.js';
import { compare } from './run-page.js';

const fenced = (language: string, ...lines: string[]): string =>
  [`\`\`\`${language}`, ...lines, '```'].join('\n');

describe('a page of documentation', () => {
  it('has steps: the commands of a session with their output, and scripts', () => {
    const { steps, faults } = readPage(
      [
        'Text',
        fenced('console', '$ livesnap ls', 'ID  SIZE', '$ livesnap start \\', '    --detach', 'a'),
        fenced('sh', 'cd x', 'livesnap ls'),
        fenced('json', '{}'),
      ].join('\n'),
    );
    assert.deepEqual(faults, []);
    assert.deepEqual(
      steps.map(({ line, commands, output }) => [line, commands, output]),
      [
        [3, 'livesnap ls', 'ID  SIZE'],
        [5, 'livesnap start \\\n    --detach', 'a'],
        [10, 'cd x\nlivesnap ls', null],
      ],
    );
  });

  it('has hidden steps, blocks that are not run, and keys', () => {
    const { steps, blocks, faults } = readPage(
      [
        '<!-- hidden:',
        'touch a',
        'touch b',
        '-->',
        '<!-- not run: it needs root -->',
        fenced('sh', 'apt install x'),
        '<!-- keys: Ctrl-A x -->',
        '',
        fenced('console', '$ livesnap console a'),
        '<!-- any comment -->',
      ].join('\n'),
    );
    assert.deepEqual(faults, []);
    assert.deepEqual(
      steps.map(({ commands, keys }) => [commands, keys]),
      [
        ['touch a\ntouch b', null],
        ['livesnap console a', '\x01x'],
      ],
    );
    assert.equal(blocks[0]!.notRun, 'it needs root');
  });

  it('has files, which later commands use', () => {
    const { steps, faults } = readPage(`<!-- file: a.mjs -->\n${fenced('js', 'x;', 'npm y')}`);
    assert.deepEqual(faults, []);
    assert.deepEqual(
      steps.map(({ commands }) => commands),
      ["cat >a.mjs <<'END OF FILE'\nx;\nnpm y\nEND OF FILE"],
    );
  });

  for (const [what, text, fault] of [
    ['commands in a block without a language', fenced('', 'livesnap ls'), /line 1: .*"not run"/],
    ['an indented command', 'Text:\n\n    livesnap ls\n', /line 3: .*fence/],
    ['another name of a shell', fenced('bash', 'ls'), /"sh" or "console"/],
    ['no reason', `<!-- not run: -->\n${fenced('sh', 'ls')}`, /needs a reason/],
    ['a mark without a block', '<!-- not run: why -->\nText', /no block follows/],
    ['a session without a command', fenced('console', 'ID  SIZE'), /begins with/],
    ['keys for two commands', `<!-- keys: x -->\n${fenced('console', '$ a', '$ b')}`, /one command/],
    ['a block without an end', '```sh\nls\n', /no end/],
  ] as const)
    it(`has a fault: ${what}`, () => {
      assert.match(readPage(text).faults.join('\n'), fault);
    });

  it('shows ages that stand for others', () => {
    const pattern = patternOf('a  machine  4 minutes ago  64 MiB');
    for (const age of ['just now', '1 second ago', '119 minutes ago', '2 years ago'])
      assert.match(`a  machine  ${age}  64 MiB\n`, pattern);
    assert.doesNotMatch('a  machine  4 minutes  64 MiB\n', pattern);
  });

  it('shows output in which numbers, IDs and spaces stand for others', () => {
    const shown =
      'Saved 256 MiB in 992 ms (paused 22 ms)\nID            TAGS\n705d4847a1a6  first\n…\nend: …';
    const pattern = patternOf(shown);
    const printed =
      'Saved 64 MiB in 1.2 s (paused 1,022 ms)\nID   TAGS\n000000000000  first\nany\nlines\nend: any';
    assert.match(`${printed}\n`, pattern);
    assert.match(`${printed.replace('any\nlines\n', '')}\n`, pattern);
    for (const [one, other] of [
      ['paused', 'stopped'],
      ['first', 'second'],
      ['Saved 64', 'Saved'],
      ['end:', 'END:'],
    ])
      assert.doesNotMatch(`${printed.replace(one!, other!)}\n`, pattern);
  });

  it('fails if a command fails, if a failure that it shows does not happen, and for other output', () => {
    const step = (output: string | null) => ({ line: 1, commands: 'livesnap ls', output, keys: null });
    compare('a', step(null), 0, 'anything\n');
    compare('a', step('b'), 0, 'note: about the host\nb\n');
    compare('a', step('livesnap: no\nDo this.'), 1, 'livesnap: no\nDo this.\n');
    assert.throws(() => compare('a', step(null), 1, ''), /status 1/);
    assert.throws(() => compare('a', step('b'), 0, 'c\n'), /prints\nc/);
    assert.throws(() => compare('a', step('livesnap: no'), 0, 'livesnap: no\n'), /status 0/);
  });

  it('names verbs and options', () => {
    assert.deepEqual(
      invocations(
        "sudo bin/livesnap --store s start --kernel k \\\n  --cmdline 'a | b --c'  # --not\nssh h livesnap ls --json | x --y\nlivesnap VERB --help",
      ),
      [
        { verb: 'start', options: ['--store', '--kernel', '--cmdline'] },
        { verb: 'ls', options: ['--json'] },
      ],
    );
  });
});
