/**
 * The networks of one machine: opens what they need on the host, and closes it when the machine has ended.
 *
 * Thread: the main thread.
 *
 * Invariants:
 * - If one network cannot be opened, nothing stays open: no tap, no process, no descriptor.
 * - What a snapshot says of the host is not used. A network that the user does not connect again has no link.
 * - A clone (`asNew`) keeps its MAC addresses, because a driver reads them once. So each of its networks is apart from
 *   that of the original: in a network namespace, behind passt, or not connected.
 */
import { closeSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import { closeNetPort, createNetPort, type NetPort } from '../../native/net.js';
import { randomMac } from './mac.js';
import {
  backendText,
  type NetBackend,
  type NetConfig,
  type NetConnection,
  type NetRequest,
  netName,
  type TapBackend,
} from './net-config.js';
import { NetCounters, type NetTraffic } from './net-counters.js';
import type { NetSetup } from './net-setup.js';
import { type Passt, startPasst } from './passt.js';
import { openTapBackend } from './tap.js';

interface MachineNet {
  readonly config: NetConfig;
  readonly setup: NetSetup;
  readonly counters: NetCounters;
}

/** A network of a machine as the control API shows it. */
export interface NetReport extends NetTraffic {
  readonly name: string;
  readonly mac: string;
  /** As on the command line; null: not connected. */
  readonly backend: string | null;
}

export class MachineNets {
  readonly #list: MachineNet[] = [];
  /** What the user should know, one sentence each. */
  readonly notices: string[] = [];
  readonly #ports: NetPort[] = [];
  readonly #processes: Passt[] = [];

  private constructor() {}

  /** Errors: those of {@link openTapBackend} and {@link startPasst}; USAGE. */
  static async open(requests: readonly NetRequest[]): Promise<MachineNets> {
    const macs = requests.map(({ mac }) => mac ?? randomMac());
    macs.forEach((mac, i) => {
      if (macs.indexOf(mac) < i)
        throw new LivesnapError('USAGE', `two networks have the address ${mac}`, {
          hint: 'Give each network another mac=, or none.',
        });
    });
    return MachineNets.#opened(
      requests.map(({ backend }, i) => ({
        name: netName(i),
        mac: macs[i]!,
        // passt takes no virtio headers.
        offloads: backend.kind === 'tap',
        backend,
      })),
    );
  }

  /** Errors: as {@link open}; USAGE for a network that the machine does not have, or a clone on the original's network. */
  static async restore(
    saved: readonly NetConfig[],
    connections: readonly NetConnection[],
    { asNew }: { asNew: boolean },
  ): Promise<MachineNets> {
    const byIndex = new Map<number, NetBackend | null>();
    for (const { index, backend } of connections) {
      if (saved[index] === undefined)
        throw new LivesnapError('USAGE', `the machine has no ${netName(index)}`, {
          hint:
            saved.length === 0
              ? 'It was started without networks, and a restored machine has the devices that it had.'
              : `Its networks are ${saved.map(({ name }) => name).join(', ')}.`,
        });
      if (byIndex.has(index))
        throw new LivesnapError('USAGE', `${netName(index)} is connected twice`, {
          hint: `Give --net ${index}: once.`,
        });
      byIndex.set(index, backend);
    }
    if (asNew) for (const [i, { name, mac }] of saved.entries()) checkIsApart(name, mac, i, byIndex.get(i));
    const nets = await MachineNets.#opened(
      saved.map((config, i) => ({ ...config, backend: byIndex.get(i) ?? null })),
    );
    for (const [i, { name, backend }] of saved.entries())
      if (!byIndex.has(i)) {
        const before = backend === null ? '' : `; when it was saved it was ${backendText(backend)}`;
        nets.notices.push(
          `${name} is not connected, and its link is down${before}. To connect it, restore with --net ${i}:tap=TAP or --net ${i}:user`,
        );
      }
    return nets;
  }

  static async #opened(configs: readonly NetConfig[]): Promise<MachineNets> {
    checkTaps(configs);
    const nets = new MachineNets();
    try {
      for (const config of configs) await nets.#add(config);
      return nets;
    } catch (error) {
      nets.close();
      throw error;
    }
  }

  get configs(): readonly NetConfig[] {
    return this.#list.map(({ config }) => config);
  }

  /** For the device thread. */
  get setups(): readonly NetSetup[] {
    return this.#list.map(({ setup }) => setup);
  }

  get reports(): readonly NetReport[] {
    return this.#list.map(({ config: { name, mac, backend }, counters: { traffic } }) => ({
      name,
      mac,
      backend: backend && backendText(backend),
      ...traffic,
    }));
  }

  /** The device thread has ended. */
  close(): void {
    for (const port of this.#ports.splice(0)) closeNetPort(port);
    for (const process of this.#processes.splice(0)) process.end();
  }

  async #add(config: NetConfig): Promise<void> {
    const { name, mac, offloads, backend } = config;
    const isStream = backend?.kind === 'user';
    const port = backend === null ? null : await this.#openPort(name, backend);
    const counters = NetCounters.allocate();
    this.#list.push({
      config,
      setup: { name, mac, offloads, port, isStream, counters },
      counters: new NetCounters(counters),
    });
  }

  async #openPort(name: string, backend: NetBackend): Promise<NetPort> {
    let fd: number;
    if (backend.kind === 'tap') {
      const opened = openTapBackend(backend);
      fd = opened.fd;
      if (!opened.isUp)
        this.notices.push(`tap ${backend.tap} of ${name} is down: ip link set ${backend.tap} up`);
    } else {
      const passt = await startPasst(backend.forwards);
      this.#processes.push(passt);
      fd = passt.fd;
    }
    try {
      const port = createNetPort(fd, { isStream: backend.kind === 'user' });
      this.#ports.push(port);
      return port;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }
}

/** One tap cannot serve two networks. */
function checkTaps(configs: readonly NetConfig[]): void {
  const taps = configs.map(({ backend }) => backend).filter((backend) => backend?.kind === 'tap');
  const same = (a: TapBackend, b: TapBackend): boolean => a.tap === b.tap && a.netns === b.netns;
  for (const [i, tap] of taps.entries())
    if (taps.findIndex((other) => same(other, tap)) < i)
      throw new LivesnapError('USAGE', `tap ${tap.tap} is given twice`, {
        hint: 'Give each network a tap of its own.',
      });
}

/** `backend` undefined: the user did not connect it. */
function checkIsApart(
  name: string,
  mac: string,
  index: number,
  backend: NetBackend | null | undefined,
): void {
  if (backend === null || backend?.kind === 'user') return;
  if (backend !== undefined && backend.netns !== null) return;
  throw new LivesnapError('USAGE', `${name} of a clone has the address of the original (${mac})`, {
    hint: `Give it a network of its own: --net ${index}:user, --net ${index}:tap=TAP,netns=NETNS, or --net ${index}:none.`,
  });
}
