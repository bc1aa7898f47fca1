// Makes docs/session.svg, the picture in the README: runs the commands below with the built livesnap in a temporary
// store, and draws what they print as a terminal.
//
//   node scripts/picture.mjs [FILE]
//
// Run it again whenever the texts of the command line change. Notes about this host are left out, because they say
// nothing about other hosts. Output longer than a line is wrapped, as a terminal wraps it.
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { CommandLine, root } from './command-line.mjs';

const SESSION = [
  '# Boot a guest that counts, and fill 64 MiB of its memory. The nonce exists only in that memory',
  'livesnap start --kernel guest/build/probe.bzImage --memory 256M --detach --name demo',
  "echo 'text 7 64' | livesnap console demo --until '^OK' | tail -n 1",
  "livesnap console demo --until '^TICK' | tail -n 1",
  '# Save it twice while it runs. The second snapshot stores only what changed',
  'livesnap save demo --tag first',
  'livesnap save demo --tag second',
  'livesnap ls',
  '# Stop it, and restore it in a new process. It continues to count, with the same nonce',
  'livesnap stop demo',
  'livesnap restore second --detach --name again',
  "livesnap console again --until '^TICK' | tail -n 1",
];

const COLUMNS = 104;
const FONT_PIXELS = 14;
const COLUMN_PIXELS = 8.43; // the advance of common monospaced fonts at this size
const LINE_PIXELS = 20;
const MARGIN_PIXELS = 20;
const BAR_PIXELS = 32;
const COLOURS = {
  background: '#0d1117',
  bar: '#21262d',
  comment: '#8b949e',
  command: '#79c0ff',
  output: '#e6edf3',
};

const cli = new CommandLine();

/** Runs a shell command; resolves to everything it printed, in the order in which it was printed. */
function shell(command) {
  const env = { ...cli.env, PATH: `${join(root, 'bin')}${delimiter}${process.env.PATH}` };
  const child = spawn('sh', ['-c', `exec 2>&1; ${command}`], {
    cwd: root,
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (part) => {
    output += part;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => {
      if (status === 0) resolve(output);
      else reject(new Error(`${command} failed with status ${status}: ${output}`));
    });
  });
}

function wrapped(text) {
  const lines = [];
  for (let at = 0; at === 0 || at < text.length; at += COLUMNS) lines.push(text.slice(at, at + COLUMNS));
  return lines;
}

async function record() {
  const lines = [];
  const add = (kind, text) => lines.push(...wrapped(text).map((part) => ({ kind, text: part })));
  for (const entry of SESSION) {
    if (entry.startsWith('#')) {
      if (lines.length > 0) add('output', '');
      add('comment', entry);
      continue;
    }
    add('command', `$ ${entry}`);
    const output = (await shell(entry)).replaceAll('\r', '').trimEnd();
    for (const line of output === '' ? [] : output.split('\n'))
      if (!line.startsWith('note: ')) add('output', line.trimEnd());
  }
  return lines;
}

const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

function draw(lines) {
  const width = Math.ceil(COLUMNS * COLUMN_PIXELS) + 2 * MARGIN_PIXELS;
  const height = BAR_PIXELS + lines.length * LINE_PIXELS + 2 * MARGIN_PIXELS;
  const dots = ['#ff5f56', '#ffbd2e', '#27c93f'].map(
    (colour, i) => `<circle cx="${MARGIN_PIXELS + 18 * i}" cy="${BAR_PIXELS / 2}" r="6" fill="${colour}"/>`,
  );
  const rows = lines.flatMap(({ kind, text }, i) => {
    if (text === '') return [];
    const y = BAR_PIXELS + MARGIN_PIXELS + i * LINE_PIXELS + FONT_PIXELS;
    const length = (text.length * COLUMN_PIXELS).toFixed(1);
    return `<text x="${MARGIN_PIXELS}" y="${y}" fill="${COLOURS[kind]}" textLength="${length}">${escaped(text)}</text>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"`,
    `  font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="${FONT_PIXELS}">`,
    '<title>A terminal: a virtual machine is started, saved twice, stopped and restored</title>',
    `<rect width="${width}" height="${height}" rx="8" fill="${COLOURS.background}"/>`,
    `<path d="M0 ${BAR_PIXELS}V8a8 8 0 0 1 8-8h${width - 16}a8 8 0 0 1 8 8v${BAR_PIXELS - 8}z" fill="${COLOURS.bar}"/>`,
    ...dots,
    '<g style="white-space: pre" xml:space="preserve">',
    ...rows,
    '</g>',
    '</svg>',
    '',
  ].join('\n');
}

const file = process.argv[2] ?? join(root, 'docs/session.svg');
try {
  writeFileSync(file, draw(await record()));
  console.log(file);
} finally {
  await cli.end();
}
