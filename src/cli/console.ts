import { LivesnapError } from '../errors.js';
import { runConsole } from './console-session.js';
import { parsePattern, parseSeconds } from './values.js';
import { defineVerb, valued } from './verb.js';

export const verb = defineVerb({
  name: 'console',
  summary: "join a machine's console",
  operands: ['<machine>'],
  options: {
    until: valued('--until <pattern>', 'leave after the first new line that matches', parsePattern),
    timeout: valued('--timeout <seconds>', 'fail when it takes longer', parseSeconds),
  },
  notes: [
    'In a terminal Ctrl-A x leaves. On pipes the end of stdin ends input only; output goes on until the machine ends.',
    'The last 64 KiB of output are shown first, but not with --until, which looks at what is written after joining.',
    'A line without an end, such as a prompt, matches when output has stood still for a second.',
  ].join('\n'),
  async run({ operands, options, output }) {
    const [name] = operands as [string];
    const { findMachine, goneError } = await import('../server/client.js');
    const client = await findMachine(name);
    const until = options.until ?? null;
    const outcome = await runConsole(client, {
      until,
      timeoutMs: options.timeout ?? null,
      historyBytes: until === null ? undefined : 0,
      say: (sentence) => output.say(sentence),
    });
    switch (outcome.kind) {
      case 'matched':
        return 0;
      case 'left':
        output.say(`\n${name} goes on.`);
        return 0;
      case 'timedOut':
        throw new LivesnapError(
          'TIMED_OUT',
          until === null
            ? `the machine ${name} is still running`
            : `no line of the console of ${name} matched ${until} in time`,
        );
      case 'broken':
        throw await goneError(client.directory);
      case 'ended':
        if (outcome.end.error !== null) throw LivesnapError.fromJSON(outcome.end.error);
        if (until !== null)
          throw new LivesnapError('MACHINE_GONE', `the machine ${name} ended before a line matched ${until}`);
        return 0;
    }
  },
});
