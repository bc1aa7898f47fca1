import { LivesnapError } from '../errors.js';
import { RING_BYTES } from '../machine/console-hub.js';
import { detachedSentence, runConsole } from './console-session.js';
import { parsePattern, parseSeconds, parseSize } from './values.js';
import { defineVerb, valued } from './verb.js';

export const verb = defineVerb({
  name: 'console',
  operands: ['<machine>'],
  usesStore: false,
  options: {
    history: valued('--history <size>', 'Show at most SIZE of past output first (default: 64K)', parseSize),
    until: valued('--until <pattern>', 'Detach after the first new line that matches', parsePattern),
    timeout: valued('--timeout <seconds>', 'Fail if there is no match before this time passes', parseSeconds),
  },
  notes: [
    'In a terminal, Ctrl-A d or x detaches (the machine keeps running), Ctrl-A s',
    'saves the machine, and Ctrl-A ? lists the keys. If stdin is a pipe, the console',
    'stays attached after stdin ends.',
    'With --until, only new output is shown and matched. An unfinished line, such as',
    'a prompt, is matched after one second without output; also one that is there',
    'already, if nothing is typed. With --json, the output of the guest goes to',
    'stderr.',
  ].join('\n'),
  async run({ operands, options, output }) {
    const until = options.until ?? null;
    if (until !== null && options.history !== undefined)
      throw new LivesnapError('USAGE', '--until shows only new output, so --history has no meaning', {
        hint: 'Leave out one of them.',
      });
    const { findMachine } = await import('../host/find-machine.js');
    const { client, name } = await findMachine(operands[0]!);
    const outcome = await runConsole(client, {
      until,
      timeoutMs: options.timeout ?? null,
      historyBytes:
        until !== null
          ? 0
          : options.history === undefined
            ? undefined
            : Math.min(options.history, RING_BYTES),
      ...(output.json ? { output: process.stderr } : {}),
      say: (sentence) => output.say(sentence),
    });
    switch (outcome.kind) {
      case 'matched':
        output.result({ name, outcome: 'matched', line: outcome.line, end: null }, () => '');
        return 0;
      case 'detached':
        output.result({ name, outcome: 'detached', line: null, end: null }, () => '');
        output.say(detachedSentence(name));
        return 0;
      case 'timedOut':
        throw new LivesnapError(
          'TIMED_OUT',
          until === null
            ? `timed out; the machine ${name} is still running`
            : `timed out waiting for ${until} on ${name}'s console`,
          { hint: 'Use a longer --timeout.' },
        );
      case 'broken':
        throw await client.goneError();
      case 'ended':
        if (outcome.end.error !== null) throw LivesnapError.fromJSON(outcome.end.error);
        if (until !== null)
          throw new LivesnapError(
            'MACHINE_GONE',
            `the machine ${name} ended before a line matched ${until}`,
            {
              hint: 'Check the output above.',
            },
          );
        output.result({ name, outcome: 'ended', line: null, end: outcome.end.kind }, () => '');
        return 0;
    }
  },
});
