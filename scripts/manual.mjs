// Writes the generated parts of docs/cli.md: the list of verbs, and the reference, which is made of the verbs'
// definitions. A test fails while the file does not match them.
//
// Invariant: only the text between two markers is written. Everything else on the page is written by hand.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { aliasesOf, VERBS } from '../dist/src/cli/verbs.js';

export const PAGE = join(dirname(dirname(fileURLToPath(import.meta.url))), 'docs/cli.md');

const code = (text) => `\`${text}\``;
const row = (...cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
const table = (titles, rows) => [row(...titles), `|${'---|'.repeat(titles.length)}`, ...rows];

/** Text of the help as Markdown. */
const prose = (text) => text.replace(/[*_<`]/g, '\\$&');

/** The notes of a verb: indented lines are aligned by spaces, the others are prose. */
function notesOf(notes) {
  const lines = [];
  let wasIndented = null;
  for (const line of notes.split('\n')) {
    const isIndented = line.startsWith(' ');
    if (isIndented !== wasIndented) lines.push('');
    lines.push(isIndented ? `  ${line}` : prose(line));
    wasIndented = isIndented;
  }
  return lines;
}

function verbSection(name, summary, { usage, operands, options, notes }) {
  const shown = Object.values(options).filter(({ hidden }) => !hidden);
  const aliases = aliasesOf(name);
  return [
    `### livesnap ${name}`,
    '',
    `${prose(summary)}.${aliases.length === 0 ? '' : ` Alias: ${aliases.map(code).join(', ')}.`}`,
    '',
    `    livesnap ${name} ${usage ?? ['[options]', ...operands].join(' ')}`,
    ...(shown.length === 0
      ? []
      : [
          '',
          ...table(
            ['option', 'effect'],
            shown.map(({ flags, help }) => row(code(flags), prose(help))),
          ),
        ]),
    ...(notes === undefined ? [] : notesOf(notes)),
    '',
  ];
}

const visible = () => [...VERBS].filter(([, { isHidden }]) => !isHidden);

function verbList() {
  const groups = new Map();
  for (const [name, { group }] of visible()) groups.set(group, [...(groups.get(group) ?? []), name]);
  return table(
    ['group', 'verbs'],
    [...groups].map(([group, names]) =>
      row(
        `[${group}](#${group.toLowerCase()})`,
        names.map((name) => `[${code(name)}](#livesnap-${name})`).join(' '),
      ),
    ),
  );
}

async function reference() {
  const sections = await Promise.all(
    visible().map(async ([name, { summary, load }]) => verbSection(name, summary, (await load()).verb)),
  );
  return sections.flat().slice(0, -1);
}

/** The page with its generated parts as the verbs define them. */
export async function withGeneratedParts(page) {
  const parts = { 'list of verbs': verbList(), reference: await reference() };
  for (const [title, lines] of Object.entries(parts)) {
    const open = `<!-- ${title}: written by npm run docs -->`;
    const close = `<!-- end of the ${title} -->`;
    const [from, to] = [page.indexOf(open), page.indexOf(close)];
    if (from < 0 || to < from) throw new Error(`the page has no "${open}" followed by "${close}"`);
    page = `${page.slice(0, from + open.length)}\n\n${lines.join('\n')}\n\n${page.slice(to)}`;
  }
  return page;
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  writeFileSync(PAGE, await withGeneratedParts(readFileSync(PAGE, 'utf8')));
