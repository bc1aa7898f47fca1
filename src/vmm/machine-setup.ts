/**
 * What a machine is made of on this host: checked, opened and allocated before its VM exists.
 *
 *     a config, or a snapshot ──▶ checks ──▶ disks, networks, RAM ──▶ how RAM is filled, and where the vCPUs start
 *
 * Thread: the main thread.
 *
 * Invariants:
 * - A snapshot is checked whole, and against this host, before anything is opened or allocated.
 * - If anything fails, nothing stays open.
 */
import { randomBytes } from 'node:crypto';
import { totalmem } from 'node:os';
import { LivesnapError } from '../errors.js';
import { formatBytes } from '../format.js';
import type { OpenSnapshot, Progress } from '../page-stream.js';
import { readBoot } from './boot/boot-linux.js';
import { MAX_CPUS } from './boot/interrupt-wiring.js';
import type { SavedConsole } from './console/saved-console.js';
import type { VmSetup } from './device-thread-messages.js';
import { deviceWindows } from './devices/machine-devices.js';
import type { DiskRequest } from './disk/disk-config.js';
import { type DiskHost, type MachineDisk, MachineDisks } from './disk/machine-disks.js';
import { requireTemplate } from './fit/cpu-templates.js';
import { requireFit } from './fit/snapshot-fit.js';
import { needsOf, readSavedHost } from './fit/snapshot-needs.js';
import { profileOfThisHost } from './fit/this-host.js';
import { clockNotices, type RestoreClock, wallClockNs } from './kvm/guest-time.js';
import { describeHost, type HostKvm } from './kvm/host.js';
import { nestedNotices } from './kvm/nested.js';
import { pvmCmdline } from './kvm/pvm.js';
import { checkRegions, MachineRegions, regionsOf } from './machine-regions.js';
import { decodeMachineState } from './machine-state.js';
import type { MachineConfig } from './machine-types.js';
import { GuestRam } from './memory/guest-memory.js';
import { LazyFill, lazyObstacle, type RestoreFill } from './memory/lazy-fill.js';
import type { WorkingSets } from './memory/working-set.js';
import { MachineNets } from './net/machine-nets.js';
import type { NetConnection, NetRequest } from './net/net-config.js';
import { readSavedMachine, type SavedMachine } from './saved-machine.js';
import { invalidState } from './saved-state.js';

const DEFAULT_CMDLINE = 'console=ttyS0 reboot=t panic=-1';
const RNG_SEED_BYTES = 32;

const PVM_NOTICE = `this host's KVM is a PVM, which emulates the guest's kernel mode: livesnap added "${pvmCmdline('')}" to the command line, keeps timer deadlines at least 40 ms away, and completes int3 and fwait for the guest`;

function checkFits(host: HostKvm, { cpus, memoryBytes }: MachineConfig): void {
  const maxCpus = Math.min(host.maxCpus, MAX_CPUS);
  if (!Number.isInteger(cpus) || cpus < 1 || cpus > maxCpus) {
    throw new LivesnapError('USAGE', `a machine cannot have ${cpus} vCPUs on this host`, {
      hint: `Give between 1 and ${maxCpus}.`,
    });
  }
  if (memoryBytes > totalmem()) {
    throw new LivesnapError(
      'HOST_LACKS',
      `the machine needs ${formatBytes(memoryBytes)} of memory, and this host has ${formatBytes(totalmem())}`,
      { hint: 'Give the machine less memory, or use a host with more.' },
    );
  }
}

/** What a machine is made of. It is freed by {@link freeSetup}. */
export interface MachineSetup extends SavedMachine {
  readonly notices: readonly string[];
  readonly regions: MachineRegions;
  readonly disks: MachineDisks;
  readonly nets: MachineNets;
  /** The snapshot that it is restored from, and the key of its store. */
  readonly base: { readonly store: string; readonly id: string } | null;
  readonly savedConsole: SavedConsole | null;
  /** RAM that is filled while the machine runs; null: all of it is there. */
  lazyFill: LazyFill | null;
}

/** Where a snapshot is restored from, and how. */
export interface RestoreOptions {
  /** As SaveTarget.key. */
  readonly store: string;
  /** The directory for what the machine writes to its disks. */
  readonly overlayDir: string;
  /** What its networks are connected to; the others have no link. */
  readonly nets?: readonly NetConnection[];
  /** A clone: its networks are apart from those of the original. */
  readonly asNew?: boolean;
  readonly progress?: Progress;
  /** Default: the host's time. */
  readonly clock?: RestoreClock;
  /** Default: `eager`. */
  readonly fill?: RestoreFill;
  /** Where the working set of the snapshot is read and kept; null: nowhere. */
  readonly workingSets?: WorkingSets | null;
}

/** What a new machine gets of the host. */
export interface CreateOptions {
  readonly disks: readonly DiskRequest[];
  readonly host: DiskHost;
  readonly nets?: readonly NetRequest[];
}

const NO_DISKS: CreateOptions = {
  disks: [],
  host: {
    overlayDir: '/',
    openStore: () => Promise.reject(new TypeError('a machine without disks has no store')),
  },
};

/** A machine that is set up and not started. */
export interface PreparedMachine {
  readonly setup: MachineSetup;
  /** Fills the RAM, or starts to. Returns where the vCPUs start. */
  fill(): Promise<VmSetup['start']>;
}

/** Whether what was written to a disk would end with the machine. */
export const endsWithMachine = ({ config, base }: MachineDisk): boolean =>
  base !== null && config.mode === 'rw';

/** Frees what a machine is made of. Its device thread has ended. */
export function freeSetup({ regions, disks, nets, lazyFill }: MachineSetup): void {
  lazyFill?.stop();
  regions.free();
  disks.close();
  nets.close();
}

/**
 * Sets up a machine that boots a kernel.
 * @throws LivesnapError NO_KVM, NO_SUCH_FILE, BAD_IMAGE, USAGE or HOST_LACKS; those of MachineDisks.open and
 * MachineNets.open
 */
export async function setUpBoot(
  given: MachineConfig,
  { disks: requests, host: diskHost, nets: netRequests = [] }: CreateOptions = NO_DISKS,
): Promise<PreparedMachine> {
  const host = describeHost();
  checkFits(host, given);
  if (given.cpuTemplate !== undefined) requireTemplate(given.cpuTemplate, profileOfThisHost());
  const disks = await MachineDisks.open(requests, diskHost, given.memoryBytes);
  return withNets(
    disks,
    () => MachineNets.open(netRequests),
    (nets) => {
      const cmdline = given.cmdline ?? DEFAULT_CMDLINE;
      const { vmgenid = true, rng = true } = given;
      const config = { ...given, cmdline, vmgenid, rng, disks: disks.configs, nets: nets.configs };
      const isPvm = host.kind === 'pvm';
      const plan = readBoot({
        kernelPath: config.kernel,
        initrdPath: config.initrd,
        cmdline: isPvm ? pvmCmdline(cmdline) : cmdline,
        memoryBytes: config.memoryBytes,
        cpus: config.cpus,
        rngSeed: randomBytes(RNG_SEED_BYTES),
        windows: deviceWindows(config),
        vmgenid,
      });
      const notices = [...(isPvm ? [PVM_NOTICE] : []), ...nets.notices];
      const regions = MachineRegions.allocate(config);
      return {
        setup: {
          ...{ config, bootPath: plan.path, notices, regions, disks, nets },
          ...{ base: null, savedConsole: null, lazyFill: null },
        },
        fill: async () => ({
          boot: plan.load(new GuestRam(regions.slots)),
          cpuTemplate: config.cpuTemplate,
        }),
      };
    },
  );
}

/**
 * Sets up a machine that continues where a snapshot was saved, with its RAM. `clock`: whether the guest's clocks
 * count the time since the save.
 * @throws LivesnapError USAGE, BAD_STATE, NEWER_FORMAT or HOST_LACKS; those of MachineDisks.restore and
 * MachineNets.restore
 */
export async function setUpRestore(
  snapshot: OpenSnapshot,
  {
    store,
    overlayDir,
    nets: connections = [],
    asNew = false,
    progress,
    clock = 'host',
    fill: mode = 'eager',
    workingSets = null,
  }: RestoreOptions,
): Promise<PreparedMachine> {
  const host = profileOfThisHost();
  const { summary, metadata } = snapshot;
  if (metadata.kind !== 'machine') {
    throw new LivesnapError('USAGE', `snapshot ${summary.id} is a ${metadata.kind}, not a machine`, {
      hint: 'Write it out with livesnap get, or start a machine with --block snapshot=ID.',
    });
  }
  const { vcpus, vm, console: savedConsole = null } = decodeMachineState(metadata.state);
  const { config: saved, bootPath, labels } = readSavedMachine(metadata.machine);
  if (vcpus.length !== saved.cpus) {
    throw invalidState(`machine.config.cpus is ${saved.cpus}, but vcpus has ${vcpus.length} items`);
  }
  if (asNew && saved.vmgenid !== true) {
    throw new LivesnapError(
      'USAGE',
      `snapshot ${summary.id} has no VM generation ID, so its clones would draw the same random numbers`,
      { hint: 'Restore it without --as-new, or save a machine that this version of livesnap has started.' },
    );
  }
  checkRegions(regionsOf(saved), snapshot.regions);
  const needs = needsOf(vcpus, saved, readSavedHost(metadata.host));
  const notices = [
    ...requireFit(summary.id, needs, host),
    ...nestedNotices(vcpus),
    ...clockNotices(clock, vm.realtimeNs, wallClockNs()),
  ];
  deviceWindows(saved); // requires that it has no more devices than a machine can have
  const disks = await MachineDisks.restore(saved.disks ?? [], snapshot, store, overlayDir, saved.memoryBytes);
  return withNets(
    disks,
    () => MachineNets.restore(saved.nets ?? [], connections, { asNew }),
    (nets) => {
      // From now on disks and networks are those that were opened here, whatever they were.
      const config = { ...saved, disks: disks.configs, nets: nets.configs };
      const regions = MachineRegions.allocate(config);
      const obstacle = mode === 'eager' ? null : lazyObstacle();
      const isLazy = mode !== 'eager' && obstacle === null;
      const setup: MachineSetup = {
        ...{ config, bootPath, labels, regions, disks, nets, savedConsole, lazyFill: null },
        notices: [...notices, ...nets.notices, ...(mode === 'lazy' && obstacle !== null ? [obstacle] : [])],
        base: { store, id: summary.id },
      };
      const fill: PreparedMachine['fill'] = async () => {
        if (isLazy) setup.lazyFill = await LazyFill.start(snapshot, regions.list, regions.slots, workingSets);
        else await snapshot.fill(regions.sink(), progress);
        return { state: metadata.state, clock };
      };
      return { setup, fill };
    },
  );
}

/** Opens the networks, and uses them with disks that are open. Closes both if that fails. */
async function withNets<T>(
  disks: MachineDisks,
  open: () => Promise<MachineNets>,
  use: (nets: MachineNets) => T,
): Promise<T> {
  let nets: MachineNets | null = null;
  try {
    nets = await open();
    return use(nets);
  } catch (error) {
    nets?.close();
    disks.close();
    throw error;
  }
}
