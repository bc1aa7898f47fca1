/**
 * Reads the code blocks of a page of documentation, and how the page says that they are tested (CONTRIBUTING.md,
 * "Documentation").
 */

/** A command of a page, or several that run together, with what the page shows as their output. */
export interface Step {
  /** The line of the page on which it begins, from 1. */
  readonly line: number;
  readonly commands: string;
  /** Null: the page shows no output. */
  readonly output: string | null;
  /** Keys that are typed after the first output. Then the commands run on a terminal. */
  readonly keys: string | null;
}

export interface Block {
  readonly line: number;
  /** Empty: the page names none. */
  readonly language: string;
  readonly text: string;
  /** Why it is not run. */
  readonly notRun: string | null;
  readonly keys: string | null;
  /** The file that has this text, for the commands that follow. */
  readonly file: string | null;
}

export interface Page {
  readonly blocks: readonly Block[];
  /** What a test runs, in order: visible blocks and hidden commands. */
  readonly steps: readonly Step[];
  /** Sentences about marks and blocks that are wrong. */
  readonly faults: readonly string[];
}

const RUN_LANGUAGES = new Set(['console', 'sh']);
const COMMAND_LANGUAGES = new Set([...RUN_LANGUAGES, 'bash', 'shell', 'zsh']);

/** A line of code that looks like a command. */
const COMMAND = /^(?:\$ |(?:sudo )?(?:livesnap|bin\/livesnap|npm|npx|curl|ssh|scripts\/\S+|docker) )/;

type MarkKind = 'not run' | 'keys' | 'file';
const MARK = /^<!-- (not run|hidden|keys|file):([\s\S]*?)-->$/;

export function readPage(text: string): Page {
  const lines = text.split('\n');
  const blocks: Block[] = [];
  const steps: Step[] = [];
  const faults: string[] = [];
  let mark: { kind: MarkKind; text: string; line: number } | null = null;
  const unused = (): void => {
    if (mark) faults.push(`line ${mark.line}: no block follows the mark "${mark.kind}"`);
    mark = null;
  };
  for (let i = 0; i < lines.length; i++) {
    const line = i + 1;
    const fence = /^( *)(`{3,})(.*)$/.exec(lines[i]!);
    if (fence) {
      const end = lines.findIndex((other, at) => at > i && other.trim() === fence[2]);
      if (end < 0) {
        faults.push(`line ${line}: the code block has no end`);
        break;
      }
      const indent = fence[1]!.length;
      const body = lines
        .slice(i + 1, end)
        .map((other) => other.slice(indent))
        .join('\n');
      const block: Block = {
        line,
        language: fence[3]!.trim(),
        text: body,
        notRun: mark?.kind === 'not run' ? mark.text : null,
        keys: mark?.kind === 'keys' ? keysOf(mark.text) : null,
        file: mark?.kind === 'file' ? mark.text : null,
      };
      mark = null;
      blocks.push(block);
      faults.push(...faultsOf(block));
      if (block.notRun === null) steps.push(...stepsOf(block));
      i = end;
      continue;
    }
    if (lines[i]!.startsWith('<!-- ')) {
      const end = lines.findIndex((other, at) => at >= i && other.endsWith('-->'));
      const found = end < 0 ? null : MARK.exec(lines.slice(i, end + 1).join('\n'));
      if (found) {
        unused();
        const [, kind, content] = found;
        if (kind === 'hidden') steps.push({ line, commands: content!.trim(), output: null, keys: null });
        else mark = { kind: kind as MarkKind, text: content!.trim(), line };
      }
      if (end > i) i = end;
      continue;
    }
    if (/^ {4}/.test(lines[i]!) && COMMAND.test(lines[i]!.slice(4)))
      faults.push(`line ${line}: put the command into a code block with a fence`);
    if (lines[i]!.trim() !== '') unused();
  }
  unused();
  return { blocks, steps, faults };
}

function faultsOf(block: Block): string[] {
  const { line, language, text, notRun, keys, file } = block;
  if (notRun === '') return [`line ${line}: "not run" needs a reason`];
  if (notRun !== null || file !== null) return [];
  if (COMMAND_LANGUAGES.has(language) && !RUN_LANGUAGES.has(language))
    return [`line ${line}: use "sh" or "console" in place of "${language}"`];
  if (!RUN_LANGUAGES.has(language) && text.split('\n').some((code) => COMMAND.test(code)))
    return [`line ${line}: a block with commands is "sh" or "console", or says why it is "not run"`];
  if (language === 'console' && !text.startsWith('$ '))
    return [`line ${line}: a block of "console" begins with "$ " and a command`];
  if (keys !== null && stepsOf(block).length !== 1)
    return [`line ${line}: "keys" needs a block of one command`];
  return [];
}

/** `sh`: all of it is one step. `console`: a step for each command, which begins with "$ ". */
function stepsOf({ line, language, text, keys, file }: Block): Step[] {
  if (file !== null)
    return [
      { line, commands: `cat >${file} <<'END OF FILE'\n${text}\nEND OF FILE`, output: null, keys: null },
    ];
  if (language === 'sh') return [{ line: line + 1, commands: text, output: null, keys }];
  if (language !== 'console') return [];
  const steps: { line: number; commands: string[]; output: string[] }[] = [];
  for (const [i, code] of text.split('\n').entries()) {
    const last = steps.at(-1);
    if (code.startsWith('$ ')) steps.push({ line: line + 1 + i, commands: [code.slice(2)], output: [] });
    else if (last?.output.length === 0 && last.commands.at(-1)!.endsWith('\\'))
      last.commands.push(code.replace(/^> /, ''));
    else last?.output.push(code);
  }
  return steps.map(({ commands, output, ...rest }) => ({
    ...rest,
    commands: commands.join('\n'),
    output: output.length > 0 ? output.join('\n') : null,
    keys,
  }));
}

/** `Ctrl-A x` is the byte 1 and an x. Names are separated by spaces. */
const keysOf = (names: string): string =>
  names
    .split(' ')
    .map((name) => {
      const control = /^Ctrl-([A-Z])$/.exec(name);
      return control ? String.fromCharCode(control[1]!.charCodeAt(0) - 64) : name === 'Enter' ? '\r' : name;
    })
    .join('');

/** A number with its unit, as livesnap formats it. */
const NUMBER =
  /\d[\d,]*(?:\.\d+)?(?: ?(?:B|KiB|MiB|GiB|TiB|ms|s|min|h|d|%)(?![A-Za-z]))?(?: \d+ (?:ms|s|min|h)(?![A-Za-z]))?/;
/** When something was, as livesnap formats it. */
const AGE = /(?:\d+ (?:second|minute|hour|day|week|month|year)s? ago|just now)/;
const ID = /\b[0-9a-f]{12,32}\b/;
const VARIABLE = new RegExp(`${ID.source}|${AGE.source}|${NUMBER.source}|…| +`, 'g');

/**
 * A pattern for the output that a page shows. A number with its unit stands for any number, an age for any age, an ID for
 * any ID, spaces for any number of spaces, "…" for the rest of a line, and a line of "…" alone for any lines.
 */
export function patternOf(shown: string): RegExp {
  const lines = shown.split('\n').map((line) => {
    if (line.trim() === '…') return '(?:.*\\n)*';
    let pattern = '';
    let at = 0;
    for (const found of line.matchAll(VARIABLE)) {
      pattern += escaped(line.slice(at, found.index));
      pattern +=
        found[0] === '…'
          ? '.*'
          : found[0].trim() === ''
            ? ' +'
            : new RegExp(`^${ID.source}$`).test(found[0])
              ? '[0-9a-f]{12,32}'
              : new RegExp(`^${AGE.source}$`).test(found[0])
                ? AGE.source
                : `(?:${NUMBER.source})`;
      at = found.index + found[0].length;
    }
    return `${pattern}${escaped(line.slice(at))} *\\n`;
  });
  return new RegExp(`^${lines.join('')}$`);
}

const escaped = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');

/** A call of livesnap in text: its verb and its options. */
export interface Invocation {
  readonly verb: string;
  readonly options: readonly string[];
}

/** The calls of livesnap in code. Words in capitals are placeholders, and are skipped. */
export function invocations(code: string): Invocation[] {
  const plain = code
    .replaceAll('\\\n', ' ')
    .replace(/'[^'\n]*'|"[^"\n]*"/g, 'X')
    .replace(/(?<=\s)#.*$/gm, '');
  return [...plain.matchAll(/(?:^|[\s/(;|&`])livesnap((?: +[^\s;|&()<>`]+)+)/gm)].flatMap(([, rest]) => {
    const words = rest!.trim().split(/ +/);
    const options = words.filter((word) => /^--[a-z]/.test(word)).map((word) => word.replace(/=.*/, ''));
    let at = 0;
    while (words[at]?.startsWith('-')) at += words[at] === '--store' ? 2 : 1;
    const verb = words[at];
    return verb !== undefined && /^[a-z][a-z-]*$/.test(verb) ? [{ verb, options }] : [];
  });
}
