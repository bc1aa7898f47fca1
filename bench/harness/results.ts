/**
 * Results: one file of JSON for each kind of host in bench/results/, a table for people, and the guard.
 * Results of two kinds of host are never compared.
 */
import { existsSync, mkdirSync, readFileSync, statfsSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { projectRoot } from '../../src/native/addon.js';
import { type Figure, isMet, median, ratioOf, type Summary, summarize } from './figure.js';

export interface HostKind {
  readonly cpu: string;
  readonly cores: number;
  readonly kvm: string;
  readonly node: string;
  readonly fileSystem: string;
}

const RESULTS = join(projectRoot, 'bench/results');
/** Magic numbers of statfs(2). */
const FILE_SYSTEMS: Readonly<Record<number, string>> = {
  61267: 'ext4',
  1481003842: 'xfs',
  2435016766: 'btrfs',
  16914836: 'tmpfs',
  2035054128: 'overlayfs',
};

/** VMX and SVM show as flags of the processor; a host without both has another kind, such as PVM, or none. */
function kvmKind(): string {
  if (!existsSync('/dev/kvm')) return 'none';
  const flags = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'latin1'))?.[1] ?? '';
  const name = [' vmx', ' svm'].find((flag) => `${flags} `.includes(`${flag} `));
  return name === undefined ? 'pvm' : name.trim();
}

/** @param dir - where the stores are: its file system counts */
export function hostKind(dir: string): HostKind {
  const processors = cpus();
  const type = statfsSync(dir).type;
  return {
    cpu: processors[0]?.model.trim() ?? 'unknown',
    cores: processors.length,
    kvm: kvmKind(),
    node: process.versions.node.split('.')[0]!,
    fileSystem: FILE_SYSTEMS[type] ?? `0x${type.toString(16)}`,
  };
}

interface StoredFigure extends Summary {
  readonly unit: string;
  readonly rounds: number;
  readonly reference: ({ readonly name: string } & Summary) | null;
  readonly ratio: number | null;
  readonly target: number | null;
  readonly margin: number;
}

export interface Results {
  readonly host: HostKind;
  /** By what was measured: the name of the image, then the name of the figure. */
  readonly inputs: Record<string, Record<string, StoredFigure>>;
}

function pathOf({ cpu, cores, kvm, node, fileSystem }: HostKind): string {
  const words = `${cpu} ${cores} ${kvm} node${node} ${fileSystem}`.toLowerCase();
  return join(RESULTS, `${words.replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '')}.json`);
}

/** The committed results of this kind of host; null: there are none. */
export function readResults(host: HostKind): Results | null {
  const path = pathOf(host);
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Results) : null;
}

const digits = (value: number): number => Number(value.toPrecision(4));
const rounded = ({ median, min, p90, max }: Summary): Summary => ({
  median: digits(median),
  min: digits(min),
  p90: digits(p90),
  max: digits(max),
});

function stored(figure: Figure): StoredFigure {
  const ratio = ratioOf(figure);
  return {
    unit: figure.unit,
    rounds: figure.values.length,
    ...rounded(summarize(figure.values)),
    reference: figure.reference && {
      name: figure.reference.name,
      ...rounded(summarize(figure.reference.values)),
    },
    ratio: ratio === null ? null : digits(ratio),
    target: figure.target,
    margin: figure.margin,
  };
}

/** Replaces these figures in the file of this kind of host, and keeps the others. Returns its path. */
export function writeResults(host: HostKind, input: string, figures: readonly Figure[]): string {
  const before = readResults(host)?.inputs ?? {};
  const fresh = Object.fromEntries(figures.map((figure) => [figure.name, stored(figure)]));
  const all = { ...before[input], ...fresh };
  const sorted = Object.fromEntries(Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1)));
  mkdirSync(RESULTS, { recursive: true });
  writeFileSync(
    pathOf(host),
    `${JSON.stringify({ host, inputs: { ...before, [input]: sorted } }, null, 2)}\n`,
  );
  return pathOf(host);
}

/**
 * One sentence for each figure that is worse than the committed one by more than its margin. A figure with a reference is
 * compared by its ratio, because hosts are not equally fast at all times. A figure that was not committed passes.
 */
export function findWorse(committed: Results, input: string, figures: readonly Figure[]): string[] {
  return figures.flatMap((figure) => {
    const before = committed.inputs[input]?.[figure.name];
    if (before === undefined) return [];
    const ratio = before.ratio === null ? null : ratioOf(figure);
    const now = ratio ?? median(figure.values);
    const then = ratio === null ? before.median : before.ratio!;
    const isWorse = figure.isRate ? now < then / (1 + figure.margin) : now > then * (1 + figure.margin);
    if (!isWorse) return [];
    const unit = ratio === null ? ` ${figure.unit}` : ` × ${figure.reference!.name}`;
    return [
      `${figure.name} is ${now.toPrecision(3)}${unit}, and was ${then.toPrecision(3)}: worse by more than ${Math.round(figure.margin * 100)}%.`,
    ];
  });
}

const number = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);

/** The table of the figures, in Markdown. */
export function table(figures: readonly Figure[]): string {
  const rows = figures.map((figure) => {
    const { median, min, p90, max } = summarize(figure.values);
    const { reference } = figure;
    const ratio = ratioOf(figure);
    const met = isMet(figure);
    const limit = figure.target === null ? '' : `${figure.isRate ? '≥' : '≤'} ${figure.target}`;
    return [
      figure.name,
      `${number(median)} ${figure.unit}`,
      `${number(min)}, ${number(p90)}, ${number(max)}`,
      reference === null ? '' : `${reference.name}: ${spreadOf(reference.values)}`,
      ratio === null ? '' : number(ratio),
      met === null ? limit : `${limit}, ${met ? 'met' : 'missed'}`,
    ];
  });
  const all = [['figure', 'median', 'min, p90, max', 'compared with', 'ratio', 'target'], ...rows];
  const widths = all[0]!.map((_, i) => Math.max(...all.map((row) => row[i]!.length)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, i) => cell.padEnd(widths[i]!)).join(' | ')} |`;
  return [
    line(all[0]!),
    `|${widths.map((n) => '-'.repeat(n + 2)).join('|')}|`,
    ...all.slice(1).map(line),
  ].join('\n');
}

function spreadOf(values: readonly number[]): string {
  const { median, min, max } = summarize(values);
  return `${number(median)} (${number(min)}–${number(max)})`;
}
