/**
 * Helpers of tests that need /dev/kvm. Without it they are skipped with a message. In CI on a host that has /dev/kvm, they
 * fail instead.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { LivesnapError } from '../../src/errors.js';
import { projectRoot } from '../../src/native/addon.js';
import { describeHost, type HostKvm } from '../../src/vmm/kvm/host.js';

export const probe = (image: 'probe.elf' | 'probe.bzImage' | 'probe-raw.bzImage'): string =>
  join(projectRoot, 'guest/build', image);

/** The kind of this host's KVM, for tests that exist on one kind only; null if there is none. */
export function kvmKind(): HostKvm['kind'] | null {
  try {
    return describeHost().kind;
  } catch {
    return null;
  }
}

/** Call in a `before` hook of a suite that runs machines. */
export function requireKvm(context: Mocha.Context): void {
  try {
    describeHost();
  } catch (error) {
    assert(error instanceof LivesnapError);
    if (process.env.CI && existsSync('/dev/kvm')) throw error;
    process.stderr.write(`    SKIPPED, nothing below was tested: ${error.message}\n`);
    context.skip();
  }
}
