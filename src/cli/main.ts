#!/usr/bin/env node
/**
 * The command `livesnap`: reads the arguments, runs the verb, and ends with its exit status. Verbs are data
 * (verb.ts), one file each; only the one that is called is loaded, so that `doctor` works where the rest cannot.
 */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command, CommanderError, Option } from 'commander';
import { defaultStore } from '../environment.js';
import { asLivesnapError, ExitStatus, LivesnapError } from '../errors.js';
import { onNote } from '../notes.js';
import { requireLocal } from '../store/remote/address.js';
import { firstWord, withVerb } from './arguments.js';
import { complain, Output } from './output.js';
import { flush, guardStandardStreams } from './standard-output.js';
import { parseText } from './values.js';
import type { Verb } from './verb.js';

const VERBS: Record<string, () => Promise<{ verb: Verb }>> = {
  start: () => import('./start.js'),
  ps: () => import('./ps.js'),
  console: () => import('./console.js'),
  pause: () => import('./pause.js'),
  resume: () => import('./resume.js'),
  stop: () => import('./stop.js'),
  save: () => import('./save.js'),
  restore: () => import('./restore.js'),
  ls: () => import('./ls.js'),
  show: () => import('./show.js'),
  stats: () => import('./stats.js'),
  tag: () => import('./tag.js'),
  rm: () => import('./rm.js'),
  gc: () => import('./gc.js'),
  check: () => import('./check.js'),
  repair: () => import('./repair.js'),
  copy: () => import('./copy.js'),
  export: () => import('./export.js'),
  import: () => import('./import.js'),
  'serve-store': () => import('./serve-store.js'),
  put: () => import('./put.js'),
  get: () => import('./get.js'),
  doctor: () => import('./doctor.js'),
};

/** `parse` with errors that say which option they are about. */
const naming =
  (option: Option, parse: (text: string) => unknown) =>
  (text: string): unknown => {
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof LivesnapError)) throw error;
      const { code, message, hint } = error;
      throw new LivesnapError(code, `${option.long}: ${message}`, hint === undefined ? {} : { hint });
    }
  };

/** The options that every verb takes, before it or after it. */
function commonOptions(): Option[] {
  const store = new Option(
    '--store <dir>',
    'the store (default: $LIVESNAP_STORE, else the XDG data directory)',
  );
  return [
    store.argParser(naming(store, parseText)),
    new Option('--json', 'print the result, or the error, as JSON'),
    new Option('--quiet', 'print no words: neither remarks nor progress'),
  ];
}

interface CommonValues {
  store?: string;
  json?: boolean;
  quiet?: boolean;
}

function addVerb(program: Command, verb: Verb, ran: (status: number | undefined) => void): void {
  const command = program.command(verb.name, { hidden: verb.hidden ?? false }).description(verb.summary);
  for (const operand of verb.operands) command.argument(operand);
  const options = Object.entries(verb.options).map(([key, spec]) => {
    const option = new Option(spec.flags, spec.help).hideHelp(spec.hidden ?? false);
    if (spec.parse) option.argParser(naming(option, spec.parse));
    command.addOption(option);
    return [key, option.attributeName()] as const;
  });
  for (const option of commonOptions()) command.addOption(option);
  if (verb.notes !== undefined) command.addHelpText('after', `\n${verb.notes}`);
  command.action(async () => {
    const given = command.opts();
    const common: CommonValues = { ...program.opts(), ...given };
    const output = new Output(common.json ?? false, common.quiet ?? false);
    onNote((sentence) => output.say(`note: ${sentence}`));
    ran(
      await verb.run({
        operands: command.processedArgs.flat().filter((operand) => operand !== undefined),
        options: Object.fromEntries(
          options.map(([key, name]) => [key, given[name] ?? (verb.options[key]!.parse ? undefined : false)]),
        ),
        output,
        // Only some verbs need a store, and there may be no place for one.
        get storeDir() {
          return resolve(requireLocal(common.store ?? (process.env.LIVESNAP_STORE || defaultStore())));
        },
        get namedStoreDir() {
          const named = common.store ?? (process.env.LIVESNAP_STORE || null);
          return named === null ? null : resolve(requireLocal(named));
        },
      }),
    );
  });
}

/** A complaint of the parser's as an error of ours: `error: unknown option '--x'\n(Did you mean --y?)`. */
function usageError(error: CommanderError, verb: string | undefined): LivesnapError {
  const [message = '', ...rest] = error.message.replace(/^error: /, '').split('\n');
  const more = `See livesnap ${verb === undefined ? '' : `${verb} `}--help.`;
  const advice = rest.join(' ').replace(/^\((.*)\)$/, '$1');
  return new LivesnapError('USAGE', message, { hint: advice === '' ? more : `${advice} ${more}` });
}

async function run(args: readonly string[]): Promise<number> {
  const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
  const program = new Command('livesnap')
    .description('Runs Linux in KVM virtual machines and keeps deduplicated snapshots of them.')
    .usage('VERB [options]')
    .version(version, '--version', 'print the version')
    .helpOption('--help', 'say how it is used')
    .helpCommand('help [verb]', 'say how a verb is used')
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
  for (const option of commonOptions()) program.addOption(option);
  let status: number | undefined;
  const word = firstWord(args);
  const wanted = word !== undefined && Object.hasOwn(VERBS, word) ? word : undefined;
  for (const name of wanted === undefined ? Object.keys(VERBS) : [wanted]) {
    const { verb } = await VERBS[name]!();
    addVerb(program, verb, (result) => {
      status = result;
    });
  }
  if (args.length === 0) {
    process.stderr.write(program.helpInformation());
    return ExitStatus.usage;
  }
  if (word === undefined && !args.includes('--help') && !args.includes('--version'))
    throw new LivesnapError('USAGE', 'no verb is given', { hint: 'See livesnap --help.' });
  try {
    // What is no verb is complained of even where help is asked for.
    const isUnknown = word !== undefined && wanted === undefined && !word.startsWith('-');
    await program.parseAsync(isUnknown ? [word] : args, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return 0;
    throw usageError(error, wanted);
  }
  return status ?? 0;
}

guardStandardStreams();
const args = withVerb(process.argv.slice(2));
let status: number;
try {
  status = await run(args);
} catch (thrown) {
  const error = asLivesnapError(thrown, 'LIVESNAP_DEBUG=1 shows where.');
  const end = args.indexOf('--');
  if (args.slice(0, end < 0 ? undefined : end).includes('--json')) new Output(true, true).error(error);
  else complain(error);
  status = error.exitStatus;
}
await flush(process.stdout);
await flush(process.stderr);
process.exit(status);
