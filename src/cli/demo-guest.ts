/**
 * Chooses the guest of the demo: a kernel of this host, because that is Linux as people know it, or else the bundled
 * probe, which runs everywhere.
 */
import { accessSync, constants, existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { bundledGuest, projectRoot } from '../native/project-root.js';
import type { KvmKind } from '../vmm/kvm/host.js';

export interface LinuxGuest {
  readonly kind: 'linux';
  /** Absolute path. */
  readonly kernel: string;
  /** The program that becomes process 1: absolute path. */
  readonly program: string;
}

export interface ProbeGuest {
  readonly kind: 'probe';
  readonly kernel: string;
  /** Why it is not a kernel of this host, as a sentence. */
  readonly why: string;
}

export type DemoGuest = LinuxGuest | ProbeGuest;

/** What the choice depends on. */
export interface DemoHost {
  readonly kvm: KvmKind;
  /** The release of the kernel that runs. */
  readonly release: string;
  /** Kernels in /boot, newest first: absolute paths. */
  kernels(): readonly string[];
  isReadable(file: string): boolean;
}

const PROGRAM = join(projectRoot, 'guest/build/demo-init');

export const probeGuest = (why: string): ProbeGuest => ({
  kind: 'probe',
  kernel: bundledGuest,
  why: `${why}, so this is the bundled guest.`,
});

/** The kernel that runs, or else the newest one. */
export function chooseGuest(host: DemoHost): DemoGuest {
  if (host.kvm !== 'vmx' && host.kvm !== 'svm')
    return probeGuest('Stock kernels need KVM with VMX or SVM, and this host has another kind');
  const kernels = host.kernels();
  if (kernels.length === 0) return probeGuest('/boot has no kernel');
  const running = kernels.find((file) => file.endsWith(`-${host.release}`));
  const wanted = running === undefined ? kernels : [running, ...kernels.filter((file) => file !== running)];
  const kernel = wanted.find((file) => host.isReadable(file));
  if (kernel === undefined) return probeGuest(`${wanted[0]} cannot be read by this user`);
  if (!host.isReadable(PROGRAM)) return probeGuest('The program for Linux has not been built');
  return { kind: 'linux', kernel, program: PROGRAM };
}

const BOOT = '/boot';
/** `vmlinuz`, `vmlinuz-6.1.0-28-amd64`, `vmlinuz-linux`; no rescue image. */
const KERNEL_NAME = /^vmlinuz(?!.*rescue)/;

function kernelsOf(directory: string): string[] {
  if (!existsSync(directory)) return [];
  const files = readdirSync(directory)
    .filter((name) => KERNEL_NAME.test(name))
    .map((name) => join(directory, name));
  const age = (file: string): number => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return files.sort((a, b) => age(b) - age(a));
}

function isReadable(file: string): boolean {
  try {
    accessSync(file, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

export async function thisDemoHost(): Promise<DemoHost> {
  const { describeHost } = await import('../vmm/kvm/host.js');
  return { kvm: describeHost().kind, release: release(), kernels: () => kernelsOf(BOOT), isReadable };
}

/** The file of the initramfs for a kernel. */
export async function initramfsFor({ program }: LinuxGuest): Promise<Buffer> {
  const { initramfsOf } = await import('./initramfs.js');
  return initramfsOf(readFileSync(program));
}
