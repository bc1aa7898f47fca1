/**
 * The networks of a machine as its config describes them, and as the user asks for them.
 *
 * Invariant: what a config of a snapshot asks of the host (taps, addresses, forwards, paths) is shown and never used. A
 * restored machine is connected only to what the user gives again.
 */
import { isIPv4 } from 'node:net';
import { type Check, flag, integer, list, nullable, object, oneOf, satisfying, text } from '../../schema.js';

/** A TCP port of the host that leads to one of the guest. */
export interface Forward {
  /** An IPv4 address of the host; null: every address. */
  readonly address: string | null;
  readonly hostPort: number;
  readonly guestPort: number;
}

/** An interface of the host that frames come from and go to. */
export interface TapBackend {
  readonly kind: 'tap';
  readonly tap: string;
  /** A name as of `ip netns`, or an absolute path; null: the network namespace of livesnap. */
  readonly netns: string | null;
  /** Whether livesnap makes the tap, and removes it with the machine. */
  readonly create: boolean;
  /** Of the host's end of a tap that is made: `10.0.0.1/24`. */
  readonly address: string | null;
}

/** A user-mode network: a passt process. */
export interface UserBackend {
  readonly kind: 'user';
  readonly forwards: readonly Forward[];
}

export type NetBackend = TapBackend | UserBackend;

export interface NetConfig {
  /** `net0`, `net1`, …: the name of its device. */
  readonly name: string;
  /** `02:00:00:00:00:01`, in lower case. */
  readonly mac: string;
  /** Whether the device offers checksums and segmentation. */
  readonly offloads: boolean;
  /** Null: it is not connected, and its link is down. */
  readonly backend: NetBackend | null;
}

/** A network as the user asks for it. */
export interface NetRequest {
  readonly backend: NetBackend;
  /** Null: a random one. */
  readonly mac: string | null;
}

/** What a network of a restored machine is connected to. */
export interface NetConnection {
  readonly index: number;
  /** Null: nothing, on purpose. */
  readonly backend: NetBackend | null;
}

/** More than there are virtio devices. */
export const MAX_NETS = 16;
export const MAX_FORWARDS = 64;

export const netName = (index: number): string => `net${index}`;

/** An address of one station: the lowest bit of the first byte is 0. */
export const MAC = /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/;
/** A name of a network interface. */
export const TAP_NAME = /^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,15}$/;
/** A name of a network namespace, or an absolute path. */
export const NETNS = /^(?!\.{1,2}$)([A-Za-z0-9_.-]{1,64}|\/[\x21-\x7e]{1,255})$/;
/** An address with the length of its prefix. */
export const ADDRESS = /^[0-9a-fA-F.:]{2,45}\/\d{1,3}$/;

const PORT = integer(1, 65535);

const FORWARD = object(
  {
    address: nullable(satisfying(text(), isIPv4, 'is not an IPv4 address')),
    hostPort: PORT,
    guestPort: PORT,
  },
  { others: 'ignore' },
);

const BACKEND: Check<NetBackend> = (value, path) => {
  const { kind } = object({ kind: oneOf('tap', 'user') }, { others: 'ignore' })(value, path);
  return kind === 'tap'
    ? object(
        {
          kind: oneOf('tap'),
          tap: text(TAP_NAME, 'a name of an interface'),
          netns: nullable(text(NETNS, 'a network namespace')),
          create: flag,
          address: nullable(text(ADDRESS, 'an address')),
        },
        { others: 'ignore' },
      )(value, path)
    : object({ kind: oneOf('user'), forwards: list(FORWARD, 0, MAX_FORWARDS) }, { others: 'ignore' })(
        value,
        path,
      );
};

/** The check of the networks in a snapshot's description. Names follow from the order. */
export const NET_CONFIGS: Check<readonly NetConfig[]> = satisfying(
  list(
    object(
      {
        name: text(),
        mac: text(MAC, 'a MAC address of one station'),
        offloads: flag,
        backend: nullable(BACKEND),
      },
      { others: 'ignore' },
    ),
    0,
    MAX_NETS,
  ),
  (nets) => nets.every(({ name }, i) => name === netName(i)),
  `are not named ${netName(0)}, ${netName(1)}, … in this order`,
);

/** As the user writes it: `tap=tap0,netns=blue`, `user,forward=8080:80`. */
export function backendText(backend: NetBackend): string {
  if (backend.kind === 'user') return ['user', ...backend.forwards.map(forwardText)].join(',');
  const { tap, netns, create, address } = backend;
  return [
    `tap=${tap}`,
    ...(netns === null ? [] : [`netns=${netns}`]),
    ...(create ? ['create'] : []),
    ...(address === null ? [] : [`ip=${address}`]),
  ].join(',');
}

const forwardText = ({ address, hostPort, guestPort }: Forward): string =>
  `forward=${address === null ? '' : `${address}:`}${hostPort}:${guestPort}`;
