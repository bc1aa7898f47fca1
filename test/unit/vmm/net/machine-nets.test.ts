import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { LivesnapError } from '../../../../src/errors.js';
import { MachineNets } from '../../../../src/vmm/net/machine-nets.js';
import type { NetBackend, NetConfig } from '../../../../src/vmm/net/net-config.js';
import { Namespace, requireNamespaces } from '../../../namespaces.js';

const user: NetBackend = { kind: 'user', forwards: [] };
const tap = (name: string, more: Partial<NetBackend> = {}): NetBackend =>
  ({ kind: 'tap', tap: name, netns: null, create: false, address: null, ...more }) as NetBackend;

const fails = (work: Promise<unknown>, code: string, message: RegExp): Promise<void> =>
  assert.rejects(
    work,
    (error) =>
      error instanceof LivesnapError &&
      error.code === code &&
      message.test(error.message) &&
      error.hint !== undefined,
  );

const saved = (backend: NetBackend | null): NetConfig => ({
  name: 'net0',
  mac: '02:00:00:00:00:01',
  offloads: true,
  backend,
});

describe('MachineNets', () => {
  const opened: MachineNets[] = [];
  afterEach(() => {
    for (const each of opened.splice(0)) each.close();
  });
  const open = async (...backends: NetBackend[]): Promise<MachineNets> => {
    const nets = await MachineNets.open(backends.map((backend) => ({ backend, mac: null })));
    opened.push(nets);
    return nets;
  };

  describe('of a restored machine', () => {
    it('uses nothing of what the snapshot says, and says how to connect it', async () => {
      const backend = tap('precious', { netns: '/proc/1/ns/net', create: true });
      const nets = await MachineNets.restore([saved(backend)], [], { asNew: false });
      opened.push(nets);
      assert.equal(nets.setups[0]!.port, null);
      assert.deepEqual(nets.configs, [saved(null)]);
      assert.match(nets.notices[0]!, /net0 is not connected.*it was tap=precious,.*--net 0:tap=TAP/);
    });

    it('may stay without a link on purpose', async () => {
      const nets = await MachineNets.restore([saved(user)], [{ index: 0, backend: null }], { asNew: true });
      opened.push(nets);
      assert.deepEqual(nets.notices, []);
    });

    it('refuses networks that the machine does not have, and two connections of one', async () => {
      const restore = (...indices: number[]): Promise<MachineNets> =>
        MachineNets.restore(
          [saved(null)],
          indices.map((index) => ({ index, backend: null })),
          { asNew: false },
        );
      await fails(restore(1), 'USAGE', /the machine has no net1/);
      await fails(restore(0, 0), 'USAGE', /net0 is connected twice/);
    });

    it('keeps a clone apart from the original', async () => {
      const clone = (...backends: NetBackend[]): Promise<MachineNets> =>
        MachineNets.restore(
          [saved(user)],
          backends.map((backend) => ({ index: 0, backend })),
          { asNew: true },
        );
      await fails(clone(), 'USAGE', /net0 of a clone has the address of the original \(02:00:00:00:00:01\)/);
      await fails(clone(tap('t', { create: true })), 'USAGE', /net0 of a clone/);
    });
  });

  it('refuses one tap or one address for two networks', async () => {
    await fails(open(tap('t'), tap('t')), 'USAGE', /tap t is given twice/);
    const mac = '02:00:00:00:00:01';
    const twice = MachineNets.open([
      { backend: user, mac },
      { backend: user, mac },
    ]);
    await fails(twice, 'USAGE', /two networks have the address 02:00:00:00:00:01/);
  });

  it('says that passt is not installed, with the package', async () => {
    const { PATH } = process.env;
    process.env.PATH = '/nowhere';
    try {
      await assert.rejects(open(user), {
        code: 'HOST_LACKS',
        message: 'passt is not installed',
        hint: /apt-get install passt/,
      });
    } finally {
      process.env.PATH = PATH;
    }
  });

  it('says that a port of the host is in use', async () => {
    const server = createServer().listen(0);
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address() as { port: number };
    try {
      const backend = { ...user, forwards: [{ address: null, hostPort: port, guestPort: 80 }] };
      await fails(
        open(backend as NetBackend),
        'NAME_IN_USE',
        new RegExp(`port ${port} of the host is in use`),
      );
    } finally {
      server.close();
    }
  });

  describe('with taps', () => {
    let namespace: Namespace;
    before(function () {
      requireNamespaces(this);
      namespace = new Namespace();
    });
    after(() => namespace?.remove());
    const here = (name: string, more: Partial<NetBackend> = {}): NetBackend =>
      tap(name, { netns: namespace.name, ...more } as Partial<NetBackend>);
    const interfaces = (): string => namespace.run('ip', '-br', 'addr').stdout;

    it('makes a tap with an address, and removes it at the end', async () => {
      const nets = await open(here('made', { create: true, address: '10.91.7.1/24' } as Partial<NetBackend>));
      assert.match(interfaces(), /made .*10\.91\.7\.1\/24/);
      assert.match(namespace.run('ip', 'link', 'show', 'made').stdout, /[<,]UP[,>]/);
      assert.equal(nets.reports[0]!.backend, `tap=made,netns=${namespace.name},create,ip=10.91.7.1/24`);
      nets.close();
      assert.doesNotMatch(interfaces(), /made/);
    });

    it('makes a tap with an IPv6 address', async () => {
      await open(here('made6', { create: true, address: 'fd00:91::1/64' } as Partial<NetBackend>));
      assert.match(interfaces(), /made6 .*fd00:91::1\/64/);
    });

    it('leaves nothing behind when a later network cannot be opened', async () => {
      await fails(
        open(here('early', { create: true } as Partial<NetBackend>), here('missing')),
        'NO_SUCH_FILE',
        /tap missing does not exist/,
      );
      assert.doesNotMatch(interfaces(), /early|missing/);
    });

    it('opens a tap that exists, says when it is down, and leaves it there', async () => {
      namespace.addTap('mine', '10.91.8.1/24');
      assert.deepEqual((await open(here('mine'))).notices, []);
      await fails(open(here('mine')), 'NOT_POSSIBLE_NOW', /tap mine is in use by another program/);
      for (const each of opened.splice(0)) each.close();
      namespace.run('ip', 'link', 'set', 'mine', 'down');
      assert.match((await open(here('mine'))).notices[0]!, /tap mine of net0 is down/);
      for (const each of opened.splice(0)) each.close();
      assert.match(interfaces(), /mine/);
    });

    it('refuses what cannot be, each in one sentence', async () => {
      await fails(
        open(tap('t', { netns: 'no-such-namespace' } as Partial<NetBackend>)),
        'NO_SUCH_FILE',
        /network namespace no-such-namespace does not exist/,
      );
      await fails(
        open(tap('t', { netns: '/dev/null' } as Partial<NetBackend>)),
        'USAGE',
        /\/dev\/null is not a network namespace/,
      );
      await fails(
        open(here('lo', { create: true } as Partial<NetBackend>)),
        'NAME_IN_USE',
        /interface lo exists already/,
      );
      await fails(open(here('lo')), 'USAGE', /interface lo is not a tap/);
      namespace.run('ip', 'addr', 'add', '10.91.9.1/24', 'dev', 'lo');
      const taken = { create: true, address: '10.91.9.1/24' } as Partial<NetBackend>;
      await fails(open(here('other', taken)), 'NAME_IN_USE', /address 10\.91\.9\.1\/24 is in use/);
      assert.doesNotMatch(interfaces(), /other/);
    });
  });
});
