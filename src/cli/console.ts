import { LivesnapError } from '../errors.js';
import { detachedSentence, runConsole } from './console-session.js';
import { parsePattern, parseSeconds } from './values.js';
import { defineVerb, valued } from './verb.js';

export const verb = defineVerb({
  name: 'console',
  summary: "Attach to a machine's console",
  operands: ['<machine>'],
  usesStore: false,
  options: {
    until: valued('--until <pattern>', 'Detach after the first new line that matches', parsePattern),
    timeout: valued('--timeout <seconds>', 'Fail if there is no match before this time passes', parseSeconds),
  },
  notes: [
    'In a terminal, Ctrl-A x detaches; the machine keeps running. If stdin is a',
    'pipe, the console stays attached after stdin ends.',
    'Without --until, the last 64 KiB of output are shown first. With --until, only',
    'new output is shown and matched. An unfinished line, such as a prompt, is',
    'matched after one second without output.',
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
      case 'detached':
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
        throw await goneError(client.directory);
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
        return 0;
    }
  },
});
