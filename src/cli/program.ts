/**
 * The parser: turns the verbs (verb.ts) into commands of commander, and the arguments into a call of a verb.
 *
 * Invariant: only the called verb is loaded. The list of verbs in the help, and the answer to an unknown verb, need only
 * the list in verbs.ts.
 */
import { resolve } from 'node:path';
import { Command, CommanderError, Help, Option } from 'commander';
import { type ChosenStore, chosenStore, namedStore } from '../chosen-store.js';
import { ExitStatus, LivesnapError } from '../errors.js';
import { installedVersion } from '../native/project-root.js';
import { onNote } from '../notes.js';
import { requireLocal } from '../store/remote/address.js';
import { asksForHelp, asksForVersion, firstWord } from './arguments.js';
import { commonOptions, HELP_OPTION, VERSION_OPTION } from './common-options.js';
import { requireUtf8 } from './exact-arguments.js';
import { Output } from './output.js';
import { adviceFor } from './unknown-option.js';
import type { OptionSpec, Verb, VerbEntry } from './verb.js';
import { aliasesOf, VERBS } from './verbs.js';

/** `parse` with errors that name the option. */
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

function optionOf({ flags, help, hidden, repeated, parse }: OptionSpec<unknown>): Option {
  const option = new Option(flags, help).hideHelp(hidden ?? false);
  if (parse === undefined) return option;
  const one = naming(option, parse);
  return repeated
    ? option.argParser((text, before: unknown[] | undefined) => [...(before ?? []), one(text)])
    : option.argParser(one);
}

/** The value of an option that is not given. */
const absent = ({ parse, repeated }: OptionSpec<unknown>): unknown =>
  repeated ? [] : parse === undefined ? false : undefined;

const COMMON_HEADING = 'Common options:';

interface CommonValues {
  store?: string;
  json?: boolean;
  quiet?: boolean;
}

/** The command of a verb, as the list in the help has it. */
const addCommand = (program: Command, name: string, { group, summary, isHidden }: VerbEntry): Command =>
  program.command(name, { hidden: isHidden }).helpGroup(group).description(summary);

const absoluteStore = ({ dir }: ChosenStore): string => resolve(requireUtf8(requireLocal(dir)));

function addVerb(program: Command, command: Command, verb: Verb, onStatus: (status: number) => void): void {
  for (const operand of verb.operands) command.argument(operand);
  const options = Object.entries(verb.options).map(([key, spec]) => {
    const option = optionOf(spec);
    command.addOption(option);
    return [key, option.attributeName()] as const;
  });
  for (const spec of commonOptions(verb)) command.addOption(optionOf(spec).helpGroup(COMMON_HEADING));
  if (verb.usage !== undefined) command.usage(verb.usage);
  command.addHelpOption(optionOf(HELP_OPTION).helpGroup(COMMON_HEADING));
  const aliases = aliasesOf(verb.name);
  if (aliases.length > 0) command.addHelpText('after', `\nAlias: ${aliases.join(', ')}`);
  if (verb.notes !== undefined) command.addHelpText('after', `\n${verb.notes}`);
  command.action(async () => {
    const given = command.opts();
    const common: CommonValues = { ...program.opts(), ...given };
    const output = new Output(common.json ?? false, common.quiet ?? false);
    onNote((sentence) => output.note(sentence));
    onStatus(
      await verb.run({
        operands: command.processedArgs.flat().filter((operand) => operand !== undefined),
        options: Object.fromEntries(
          options.map(([key, name]) => [key, given[name] ?? absent(verb.options[key]!)]),
        ),
        output,
        verbs: VERBS,
        storeOption: common.store,
        // Getters: some verbs need no store, and then a missing default is no error.
        get storeDir() {
          return absoluteStore(chosenStore(common.store));
        },
        get namedStoreDir() {
          const named = namedStore(common.store);
          return named && absoluteStore(named);
        },
      }),
    );
  });
}

/** Variables that users may set, for the help. docs/cli.md says more about each. */
const VARIABLES = [
  ['LIVESNAP_STORE', 'Store directory, unless --store is given'],
  ['LIVESNAP_DEBUG', '1: add the stack to an error'],
  ['XDG_CONFIG_HOME', 'Directory of livesnap/config.json (default: ~/.config)'],
  ['XDG_DATA_HOME', 'Directory of the default store (default: ~/.local/share)'],
  ['XDG_RUNTIME_DIR', 'Directory for sockets and logs of machines'],
  ['XDG_CACHE_HOME', 'Directory for caches (default: ~/.cache)'],
  ['NO_COLOR', 'If set, text has no colors or styles'],
] as const;

const EXIT_STATUSES = [
  ['0', 'Success'],
  [String(ExitStatus.failed), 'The work failed'],
  [String(ExitStatus.usage), 'The command line is wrong'],
  [String(ExitStatus.notFound), 'A file, machine, snapshot or tag does not exist'],
  [String(ExitStatus.damaged), 'Data is damaged'],
  [String(ExitStatus.unsupportedHost), 'This host lacks something, such as KVM'],
] as const;

/** Verbs in groups first, then options: the order that readers know from docker and restic. */
function formatProgramHelp(program: Command, helper: Help): string {
  const verbs = helper.visibleCommands(program);
  const options = helper.visibleOptions(program);
  const width = Math.max(
    ...verbs.map((verb) => verb.name().length),
    ...options.map((option) => helper.optionTerm(option).length),
  );
  const section = (title: string, items: readonly (readonly [string, string])[]): string[] => [
    `${title}:`,
    ...items.map(([term, text]) => helper.formatItem(term, width, text, helper)),
    '',
  ];
  const groups = [...new Set(verbs.map((verb) => verb.helpGroup()))];
  return [
    `Usage: ${helper.commandUsage(program)}`,
    '',
    helper.commandDescription(program),
    '',
    ...groups.flatMap((group) =>
      section(
        group,
        verbs
          .filter((verb) => verb.helpGroup() === group)
          .map((verb) => [verb.name(), verb.description()] as const),
      ),
    ),
    ...section(
      'Options',
      options.map((option) => [helper.optionTerm(option), option.description] as const),
    ),
    ...section('Environment variables', VARIABLES),
    ...section('Exit statuses', EXIT_STATUSES),
    'Run "livesnap VERB --help" for the options of a verb.',
    'The manual is docs/cli.md. docs/errors.md lists error codes.',
    '',
  ].join('\n');
}

function createProgram(): Command {
  const program: Command = new Command('livesnap')
    .description('Run virtual machines on KVM and keep deduplicated snapshots of them.')
    .usage('VERB [options] [arguments]')
    .version(installedVersion(), VERSION_OPTION.flags, VERSION_OPTION.help)
    .helpOption(HELP_OPTION.flags, HELP_OPTION.help)
    .helpCommand(false)
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ writeErr: () => {} })
    .configureHelp({
      helpWidth: 79,
      // Long options without a short one are aligned with those that have one.
      optionTerm: ({ short, flags }): string => (short === undefined ? `    ${flags}` : flags),
      formatHelp: (command, helper): string =>
        command === program
          ? formatProgramHelp(program, helper)
          : Help.prototype.formatHelp.call(helper, command, helper),
    });
  for (const spec of commonOptions()) program.addOption(optionOf(spec));
  return program;
}

/** A parser error as one of ours. Its message is like `error: unknown option '--x'\n(Did you mean --y?)`. */
function usageError(error: CommanderError, verb?: string, command?: Command): LivesnapError {
  const [message = '', ...rest] = error.message.replace(/^error: /, '').split('\n');
  const hint = (advice: string): string =>
    `${advice}${advice === '' ? '' : ' '}See livesnap ${verb === undefined ? '' : `${verb} `}--help.`;
  const refused = (text: string, advice: string): LivesnapError =>
    new LivesnapError('USAGE', text, { hint: hint(advice) });
  if (command !== undefined && verb !== undefined) {
    const form = `Usage: livesnap ${verb} ${command.usage()}.`;
    const most = command.registeredArguments.length;
    if (error.code === 'commander.missingArgument') return refused(message, form);
    if (error.code === 'commander.excessArguments')
      return refused(
        `too many arguments: ${verb} takes ${most === 0 ? 'none' : `at most ${most}`}`,
        verb === 'start' ? `${form} To start a saved machine: livesnap restore SNAPSHOT.` : form,
      );
  }
  const [, option = ''] = /^unknown option '(.*)'$/.exec(message) ?? [];
  const advice = adviceFor(verb ?? '*', option);
  if (advice !== null) return refused(message, advice);
  return refused(message, rest.join(' ').replace(/^\((.*)\)$/, '$1'));
}

/** Runs the command line. Resolves to the exit status. */
export async function run(args: readonly string[]): Promise<number> {
  const program = createProgram();
  const word = firstWord(args);
  const called = word !== undefined && VERBS.has(word) ? word : undefined;
  const wantsHelp = args.length === 0 || asksForHelp(args);
  if (word === undefined && !wantsHelp && !asksForVersion(args))
    throw new LivesnapError('USAGE', 'no verb is given', { hint: 'See livesnap --help.' });
  const isUnknown = word !== undefined && called === undefined && !word.startsWith('-');
  let status = 0;
  if (called !== undefined) {
    const entry = VERBS.get(called)!;
    const { verb } = await entry.load();
    addVerb(program, addCommand(program, called, entry), verb, (result) => {
      status = result;
    });
  } else if (isUnknown) {
    // Even if help is asked for.
    const { unknownVerb } = await import('./unknown-verb.js');
    throw unknownVerb(word);
  } else if (wantsHelp) for (const [name, entry] of VERBS) addCommand(program, name, entry);
  if (args.length === 0) {
    process.stderr.write(program.helpInformation());
    return ExitStatus.usage;
  }
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return 0;
    throw usageError(error, called, program.commands[0]);
  }
  return status;
}
