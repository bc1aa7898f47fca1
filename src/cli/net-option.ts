/** The values of `--net`: a network of a new machine, or what a network of a restored one is connected to. */
import { isIPv4, isIPv6 } from 'node:net';
import { resolve } from 'node:path';
import { LivesnapError } from '../errors.js';
import {
  ADDRESS,
  type Forward,
  MAC,
  MAX_FORWARDS,
  MAX_NETS,
  NETNS,
  type NetBackend,
  type NetConnection,
  type NetRequest,
  TAP_NAME,
} from '../vmm/net/net-config.js';

const EXAMPLES =
  'Examples: --net user, --net user,forward=8080:80, --net tap=tap0, --net tap=tap0,create,ip=10.0.0.1/24.';

const usage = (message: string, hint = EXAMPLES): LivesnapError =>
  new LivesnapError('USAGE', message, { hint });

const quoted = (text: string): string => JSON.stringify(text);

/** `tap=TAP[,netns=N][,create[,ip=A/N]][,mac=M]` or `user[,forward=HOST:GUEST]…[,mac=M]`. Errors: USAGE. */
export function parseNet(text: string): NetRequest {
  return parseParts(text);
}

/** `N:` and a backend as of {@link parseNet} without `mac=`, or `N:none`. Errors: USAGE. */
export function parseConnection(text: string): NetConnection {
  const [, index, rest] = /^(?:net)?(\d{1,2}):(.*)$/s.exec(text) ?? [];
  if (index === undefined || Number(index) >= MAX_NETS)
    throw usage(
      `${quoted(text)} does not name a network of the machine`,
      'Examples: --net 0:user, --net 0:tap=tap0, --net 1:none. livesnap show lists the networks of a snapshot.',
    );
  if (rest === 'none') return { index: Number(index), backend: null };
  const { backend, mac } = parseParts(rest!);
  if (mac !== null)
    throw usage(
      'a restored network keeps its MAC address',
      'Leave out mac=: the guest read it when it started.',
    );
  return { index: Number(index), backend };
}

function parseParts(text: string): NetRequest {
  let tap: string | null = null;
  let isUser = false;
  let mac: string | null = null;
  let netns: string | null = null;
  let create = false;
  let address: string | null = null;
  const forwards: Forward[] = [];
  for (const part of text.split(',')) {
    const at = part.indexOf('=');
    const key = at < 0 ? part : part.slice(0, at);
    const value = at < 0 ? null : part.slice(at + 1);
    if (part === 'user') isUser = true;
    else if (part === 'create') create = true;
    else if (key === 'tap' && value !== null)
      tap = checked(value, TAP_NAME, 'a name of an interface', 'tap=tap0');
    else if (key === 'mac' && value !== null) mac = parseMac(value);
    else if (key === 'netns' && value !== null) netns = parseNetns(value);
    else if (key === 'ip' && value !== null) address = parseAddress(value);
    else if (key === 'forward' && value !== null) forwards.push(parseForward(value));
    else
      throw usage(
        `${quoted(part)} is no part of a network`,
        `${EXAMPLES} Further parts: netns=NAME, mac=02:00:00:00:00:01.`,
      );
  }
  if (isUser === (tap !== null)) throw usage(`${quoted(text)} is neither user nor tap=TAP`);
  const backend: NetBackend = isUser
    ? { kind: 'user', forwards }
    : { kind: 'tap', tap: tap!, netns, create, address };
  if (isUser && (netns !== null || create || address !== null))
    throw usage(
      'netns=, create and ip= are parts of a tap',
      'A user network needs no interface of the host.',
    );
  if (!isUser && forwards.length > 0)
    throw usage('forward= is a part of a user network', 'A guest behind a tap has an address of its own.');
  if (address !== null && !create)
    throw usage('ip= is for a tap that livesnap makes', 'Add create, or set the address with: ip addr add.');
  if (forwards.length > MAX_FORWARDS) throw usage(`a network has ${MAX_FORWARDS} forwards at most`);
  for (const [i, { hostPort, address: at }] of forwards.entries())
    if (forwards.slice(0, i).some((other) => other.hostPort === hostPort && (other.address === at || !at)))
      throw usage(`port ${hostPort} is forwarded twice`, 'Forward each port of the host once.');
  return { backend, mac };
}

function checked(value: string, pattern: RegExp, what: string, example: string): string {
  if (!pattern.test(value)) throw usage(`${quoted(value)} is not ${what}`, `Example: ${example}`);
  return value;
}

const parseMac = (value: string): string => {
  const mac = value.toLowerCase().replaceAll('-', ':');
  if (!MAC.test(mac) || mac === '00:00:00:00:00:00')
    throw usage(
      `${quoted(value)} is not a MAC address of one station`,
      'It has 6 bytes, of which the first is even. Example: mac=02:00:00:00:00:01',
    );
  return mac;
};

const parseNetns = (value: string): string =>
  checked(value.includes('/') ? resolve(value) : value, NETNS, 'a network namespace', 'netns=blue');

function parseAddress(value: string): string {
  const [ip, prefix] = value.split('/');
  const bits = isIPv4(ip!) ? 32 : isIPv6(ip!) ? 128 : 0;
  if (!ADDRESS.test(value) || bits === 0 || Number(prefix) > bits)
    throw usage(`${quoted(value)} is not an address with a prefix`, 'Example: ip=10.0.0.1/24');
  return value;
}

function parseForward(value: string): Forward {
  const [guest, host, address = null, ...more] = value.split(':').reverse();
  const isRight = (port: string | undefined): boolean =>
    /^\d{1,5}$/.test(port ?? '') && Number(port) >= 1 && Number(port) <= 65535;
  if (!isRight(guest) || !isRight(host) || more.length > 0 || (address !== null && !isIPv4(address)))
    throw usage(
      `${quoted(value)} is not HOST:GUEST with ports from 1 to 65535`,
      'Examples: forward=8080:80, forward=127.0.0.1:8080:80 for one IPv4 address of the host.',
    );
  return { address, hostPort: Number(host), guestPort: Number(guest) };
}
