import { LivesnapError } from '../errors.js';
import { formatCount, formatDuration, nounFor, shortId } from '../format.js';
import type { Forked } from '../host/host.js';
import { parseLabel } from '../labels.js';
import { takeProcess } from './early-process.js';
import { abortedByInterruption } from './interruption.js';
import { kindOf, typeOption } from './machine-or-snapshot.js';
import { parseConnection } from './net-option.js';
import { complain, type Output } from './output.js';
import { parseCount, parseDuration, parseText } from './values.js';
import { defineVerb, flag, repeated, valued } from './verb.js';

export const verb = defineVerb({
  name: 'fork',
  operands: ['<machine|snapshot>'],
  defaultStore: "the machine's store",
  options: {
    count: valued('--count <number>', 'How many clones (default: 1)', parseCount),
    name: valued(
      '--name <name>',
      'Name the clones NAME-1, NAME-2, … (default: like the original)',
      parseText,
    ),
    type: typeOption('What to fork, if both have the name'),
    tag: repeated('--tag <tag>', 'Tag the snapshot of a machine; may be repeated', parseText),
    label: repeated(
      '--label <key=value>',
      'Label of the clones (default: those of the original); may be repeated',
      parseLabel,
    ),
    lifetime: valued('--lifetime <time>', 'Stop the clones after this time: 90s, 10m, 8h, 7d', parseDuration),
    net: repeated('--net <network>', 'Connect a network: N:user or N:none; may be repeated', parseConnection),
    overlayDir: valued(
      '--overlay-dir <dir>',
      'Directory for writes to disks (default: the store)',
      parseText,
    ),
    eager: flag('--eager', 'Read all of RAM before a clone runs'),
  },
  notes: [
    'A machine is saved once, while it runs, and the clones are restored from that',
    'snapshot, each as with restore --as-new. The snapshot stays in the store.',
    'If a clone cannot be started, the others run all the same, and the exit status',
    'is that of the first error. If the command is interrupted, no clone is left.',
  ].join('\n'),
  async run({ operands, options, output, storeDir, namedStoreDir }) {
    const [ref] = operands as [string];
    const { Host } = await import('../host/host.js');
    const kind = await kindOf(new Host(storeDir), ref, options.type);
    if (kind === 'snapshot' && options.tag.length > 0)
      throw new LivesnapError('USAGE', '--tag is for the snapshot of a machine, and nothing is saved here', {
        hint: `To tag the snapshot: livesnap tag ${ref} TAG.`,
      });
    const machine = kind === 'machine' ? await new Host(storeDir).machine(ref) : null;
    const host = new Host(machine === null ? storeDir : (namedStoreDir ?? machine.about.store), takeProcess);
    const signal = abortedByInterruption('the fork was cancelled');
    const saved =
      machine === null
        ? null
        : await output.withProgress(`saving ${ref}`, (onProgress) =>
            machine.save({ store: host.storeDir, tags: options.tag, signal, onProgress }),
          );
    const snapshot = saved?.id ?? ref;
    const startedMs = performance.now();
    const forked = await output.withProgress(
      'starting clones',
      (onForked) =>
        host.fork(snapshot, {
          count: options.count ?? 1,
          name: options.name,
          ...(options.label.length === 0 ? {} : { labels: Object.fromEntries(options.label) }),
          lifetimeMs: options.lifetime,
          nets: options.net,
          overlayDir: options.overlayDir,
          fill: options.eager ? 'eager' : 'auto',
          signal,
          onForked,
        }),
      'things',
    );
    const readyMs = Math.round(performance.now() - startedMs);
    const machines = forked.flatMap((each) => ('machine' in each ? [each.machine] : []));
    for (const clone of machines) clone.detach();
    output.result(
      { snapshot, pauseMs: saved?.pauseMs ?? null, readyMs, forks: forked.map(described) },
      () => machines.map(({ name }) => name).join('\n'),
      () => machines.map(({ name }) => name).join('\n'),
    );
    if (saved !== null)
      output.remark(
        `Saved ${ref} as ${shortId(snapshot)} (paused ${formatDuration(saved.pauseMs)}). To remove it: livesnap rm ${shortId(snapshot)}`,
      );
    output.remark(
      `${formatCount(machines.length, 'clone')} ${machines.length === 1 ? 'runs' : 'run'} after ${formatDuration(readyMs)}.`,
    );
    return complainOf(forked, output);
  },
});

const described = (forked: Forked): unknown => {
  if ('error' in forked) return { error: forked.error.toJSON() };
  const { id, name, pid, startedAt, endsAt } = forked.machine.about;
  return { id, name, pid, startedAt, endsAt };
};

/** Prints the errors. Returns the exit status. */
function complainOf(forked: readonly Forked[], output: Output): number {
  const errors = forked.flatMap((each) => ('error' in each ? [each.error] : []));
  if (!output.json) {
    errors.slice(0, MAX_COMPLAINTS).forEach(complain);
    const rest = errors.length - MAX_COMPLAINTS;
    if (rest > 0) output.say(`${formatCount(rest)} more ${nounFor(rest, 'clone')} could not be started.`);
  }
  return errors[0]?.exitStatus ?? 0;
}

const MAX_COMPLAINTS = 10;
