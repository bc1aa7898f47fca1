/** Opens the tap of a network device, and says in one sentence what is wrong if that fails. Thread: the main thread. */
import { LivesnapError, SystemError } from '../../errors.js';
import { openTap } from '../../native/net.js';
import type { TapBackend } from './net-config.js';

/** Where `ip netns` keeps its namespaces. */
const NETNS_DIR = '/run/netns';

const netnsPath = (netns: string): string => (netns.startsWith('/') ? netns : `${NETNS_DIR}/${netns}`);

/**
 * Returns the descriptor of the tap, and whether the interface is up.
 * @throws LivesnapError NO_SUCH_FILE, NO_PERMISSION, NAME_IN_USE, NOT_POSSIBLE_NOW, HOST_LACKS, USAGE, SYSTEM
 */
export function openTapBackend(backend: TapBackend): { fd: number; isUp: boolean } {
  const { tap, netns, create, address } = backend;
  const [ip, prefix] = address?.split('/') ?? [];
  try {
    return openTap({
      name: tap,
      netns: netns === null ? null : netnsPath(netns),
      create: !create ? null : ip === undefined ? 'without address' : { address: ip, prefix: Number(prefix) },
    });
  } catch (error) {
    throw error instanceof SystemError ? tapError(backend, error) : error;
  }
}

function tapError({ tap, netns, create, address }: TapBackend, error: SystemError): LivesnapError {
  const fail = (code: LivesnapError['code'], message: string, hint: string): LivesnapError =>
    new LivesnapError(code, message, { hint, cause: error });
  const { syscall, errnoName } = error;
  const isForbidden = errnoName === 'EPERM' || errnoName === 'EACCES';
  const place = netns === null ? '' : ` in network namespace ${netns}`;
  if (syscall === 'netns' && errnoName === 'ENOENT')
    return fail(
      'NO_SUCH_FILE',
      `network namespace ${netns} does not exist`,
      `ip netns list shows those that exist. To make it: ip netns add ${netns}`,
    );
  if ((syscall === 'netns' || syscall === 'setns') && isForbidden)
    return fail('NO_PERMISSION', `entering network namespace ${netns} needs root`, 'Run livesnap as root.');
  if (syscall === 'setns' && errnoName === 'EINVAL')
    return fail(
      'USAGE',
      `${netns} is not a network namespace`,
      'Give a name from ip netns list, or its path.',
    );
  if (syscall === 'find')
    return fail(
      'NO_SUCH_FILE',
      `tap ${tap} does not exist${place}`,
      `To make it: ip tuntap add ${tap} mode tap. Or let livesnap make it: --net tap=${tap},create`,
    );
  if (syscall === 'open')
    return isForbidden
      ? fail('NO_PERMISSION', '/dev/net/tun cannot be opened', 'Run livesnap as root, or use --net user.')
      : fail('HOST_LACKS', '/dev/net/tun cannot be opened', 'Load the module: modprobe tun');
  if (syscall === 'create' && errnoName === 'EEXIST')
    return fail(
      'NAME_IN_USE',
      `interface ${tap} exists already${place}`,
      'Leave out create to use it, or choose another name.',
    );
  if (syscall === 'create' && isForbidden)
    return fail('NO_PERMISSION', `making tap ${tap} needs root`, 'Run livesnap as root, or use --net user.');
  if (syscall === 'attach' && errnoName === 'EBUSY')
    return fail(
      'NOT_POSSIBLE_NOW',
      `tap ${tap} is in use by another program${place}`,
      'Give each machine a tap of its own.',
    );
  if (syscall === 'attach' && isForbidden)
    return fail(
      'NO_PERMISSION',
      `tap ${tap} belongs to another user`,
      `Run livesnap as root, or make it with: ip tuntap add ${tap} mode tap user USER`,
    );
  if (syscall === 'attach' && errnoName === 'EINVAL')
    return fail(
      'USAGE',
      `interface ${tap} is not a tap with one queue`,
      `To make one: ip tuntap add NAME mode tap`,
    );
  if (syscall === 'address' && errnoName === 'EADDRINUSE')
    return fail(
      'NAME_IN_USE',
      `address ${address} is in use by another interface${place}`,
      'Choose another address, in a network of its own.',
    );
  if (syscall === 'address' && errnoName === 'EINVAL')
    return fail('USAGE', `${address} is not an address of an interface`, 'Example: ip=10.0.0.1/24');
  return fail(
    error.code,
    `tap ${tap} cannot be ${create ? 'made' : 'opened'}${place}: ${error.message}`,
    'The kernel refuses it; its log may tell why.',
  );
}
