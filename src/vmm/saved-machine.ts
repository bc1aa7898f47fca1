/**
 * The description of a machine in its snapshot. `livesnap show` prints it, and a restore takes the config from it.
 *
 * Invariant: every field is checked before it is used, because anybody may have written the store. Unknown fields are
 * ignored and not saved again.
 */
import { type Labels, labels } from '../labels.js';
import { PAGE_BYTES } from '../page-stream.js';
import { flag, integer, nullable, object, oneOf, optional, parse, satisfying, text } from '../schema.js';
import { MAX_CPUS } from './boot/interrupt-wiring.js';
import { MAX_MEMORY_BYTES, MIN_MEMORY_BYTES } from './boot/memory-layout.js';
import { DISK_CONFIGS } from './disk/disk-config.js';
import { CPU_TEMPLATES, type MachineConfig } from './machine-types.js';
import { NET_CONFIGS } from './net/net-config.js';
import { invalidState } from './saved-state.js';

export interface SavedMachine {
  readonly config: MachineConfig;
  /** The kind of kernel image that the machine booted from. */
  readonly bootPath: string | null;
  /** Left out if there is none. */
  readonly labels?: Labels | undefined;
  /** How long the save paused the machine. Left out if it did not run. A restore does not read it. */
  readonly pauseMs?: number | undefined;
}

const SAVED_MACHINE = object(
  {
    config: object(
      {
        kernel: text(),
        initrd: nullable(text()),
        cmdline: nullable(text()),
        memoryBytes: satisfying(
          integer(MIN_MEMORY_BYTES, MAX_MEMORY_BYTES),
          (bytes) => bytes % PAGE_BYTES === 0,
          `is not a multiple of ${PAGE_BYTES}`,
        ),
        cpus: integer(1, MAX_CPUS),
        vmgenid: optional(flag),
        rng: optional(flag),
        disks: optional(DISK_CONFIGS),
        nets: optional(NET_CONFIGS),
        balloon: optional(flag),
        cpuTemplate: optional(oneOf(...CPU_TEMPLATES)),
      },
      { others: 'ignore' },
    ),
    bootPath: nullable(text()),
    labels: optional(labels),
  },
  { others: 'ignore' },
);

/** As in the description of a snapshot, so that errors name a field by its path there. */
const DESCRIPTION = object({ machine: SAVED_MACHINE });

/** Checks the field `machine` of a snapshot's description. Errors: BAD_STATE, naming the field at fault. */
export function readSavedMachine(machine: unknown): SavedMachine {
  const description = parse(DESCRIPTION, { machine }, (wrong) => invalidState(wrong.message));
  const { config, bootPath, labels } = description.machine;
  const {
    kernel,
    initrd,
    cmdline,
    memoryBytes,
    cpus,
    cpuTemplate,
    vmgenid = false,
    rng = false,
    disks = [],
    nets = [],
    balloon,
  } = config;
  const template = cpuTemplate === undefined ? {} : { cpuTemplate };
  const devices = { vmgenid, rng, disks, nets, ...(balloon === undefined ? {} : { balloon }) };
  return {
    config: { kernel, initrd, cmdline, memoryBytes, cpus, ...devices, ...template },
    bootPath,
    ...(labels === undefined ? {} : { labels }),
  };
}
