/**
 * Linux with a network. A tap in a network namespace leads to the guest. A TCP connection carries numbered bytes to the
 * guest and back while the machine is saved, stopped and restored, and a clone runs beside it.
 *
 * LIVESNAP_TRANSFER_BYTES: how much the connection carries. The guest's kernel is emulated where KVM is a PVM, so the
 * default is what takes about a minute there.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { World } from '../e2e/cli.js';
import { Namespace, requireNamespaces } from '../namespaces.js';
import { GUEST, LinuxConsole, PROMPT, requireLinuxGuest } from './linux-guest.js';

const TRANSFER_BYTES = Number(process.env.LIVESNAP_TRANSFER_BYTES ?? 10_000_000);
const PASST_BYTES = 300_000;
const HOST = '10.91.0.1';
const GUEST_IP = '10.91.0.2';
const PORT = 9000;

/**
 * Sends a sequence to whoever connects and checks what comes back. Prints `connected`, `half` when half of it is back,
 * and `all` when everything is, or what went wrong.
 */
const SEQUENCE_SERVER = `
import { createServer } from 'node:net';
const total = Number(process.argv[1]);
// A period that no packet or buffer size divides.
const period = Buffer.from(Array.from({ length: 65521 }, (_, i) => (i * 31 + (i >> 8) * 17) & 255));
const at = (from, length) => {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; ) i += period.copy(bytes, i, (from + i) % period.length);
  return bytes;
};
const end = (line) => { console.log(line); process.exit(); };
let sent = 0, back = 0, isHalf = false;
createServer((socket) => {
  console.log('connected');
  const push = () => {
    while (sent < total) {
      const bytes = at(sent, Math.min(65536, total - sent));
      sent += bytes.length;
      if (!socket.write(bytes)) return;
    }
  };
  socket.on('drain', push).on('data', (bytes) => {
    if (!bytes.equals(at(back, bytes.length))) end('wrong bytes after ' + back);
    back += bytes.length;
    if (back >= total / 2 && !isHalf) { isHalf = true; console.log('half'); }
    if (back === total) end('all');
  });
  socket.on('error', (error) => end(error.message)).on('close', () => end('closed after ' + back));
  push();
}).listen(${PORT}, '${HOST}', () => console.log('listening'));
`;

describe('Linux with a network', () => {
  let world: World;
  const namespaces: Namespace[] = [];
  const consoles: LinuxConsole[] = [];
  let network: Namespace;
  let tap: string;
  /** A machine with an idle shell. */
  let idle: string;

  function namespace(): Namespace {
    const made = new Namespace();
    namespaces.push(made);
    return made;
  }

  function open(name: string): LinuxConsole {
    const console = new LinuxConsole(world.spawn('console', name));
    consoles.push(console);
    return console;
  }

  before(async function () {
    requireLinuxGuest(this, ['vmlinux', 'initrd']);
    requireNamespaces(this);
    world = new World();
    network = namespace();
    network.addTap('tap0', `${HOST}/24`);
    tap = `tap=tap0,netns=${network.name}`;
    await world.json(
      ...['start', '--kernel', join(GUEST, 'vmlinux'), '--initrd', join(GUEST, 'initrd'), '--memory', '128M'],
      ...['--cmdline', `console=ttyS0 reboot=t panic=-1 ip=${GUEST_IP}::${HOST}:255.255.255.0::eth0:off`],
      ...['--net', `${tap},mac=02:00:00:00:00:01`, '--detach', '--name', 'first'],
    );
    const console = open('first');
    await console.until(/LINUX READY/);
    await console.until(PROMPT);
    assert(network.pings(GUEST_IP), 'the guest answers pings');
    ({ id: idle } = await world.json<{ id: string }>('save', 'first', '--then', 'stop'));
  });

  after(async () => {
    for (const console of consoles.splice(0)) console.close();
    await world?.end();
    for (const each of namespaces.splice(0)) each.remove();
  });

  it(`carries ${TRANSFER_BYTES} bytes over a connection that survives a save, a stop and a restore`, async () => {
    await world.json('restore', idle, '--net', `0:${tap}`, '--name', 'carrier', '--detach');
    const next = network.script(SEQUENCE_SERVER, `${TRANSFER_BYTES}`);
    assert.equal(await next(), 'listening');
    open('carrier').send(`nc ${HOST} ${PORT} -e /bin/busybox cat\n`);
    assert.equal(await next(), 'connected');
    assert.equal(await next(), 'half');
    const { id } = await world.json<{ id: string }>('save', 'carrier', '--then', 'stop');
    await world.json('restore', id, '--net', `0:${tap}`, '--name', 'carrier', '--detach');
    assert.equal(await next(), 'all');
    await world.json('stop', 'carrier');
  });

  it('has no link after a restore without --net, and says how to connect it', async () => {
    const { status, stderr } = await world.run(['restore', idle, '--name', 'alone', '--detach']);
    assert.equal(status, 0, stderr);
    assert.match(stderr, /net0 is not connected, and its link is down; when it was saved it was tap=tap0/);
    const console = open('alone');
    console.send('\n');
    await console.until(PROMPT);
    await console.command('cat /sys/class/net/eth0/carrier', /\n0\r*\n/);
    await world.json('stop', 'alone');
  });

  it('runs a clone beside the original, in a network of its own', async () => {
    await world.json('restore', idle, '--net', `0:${tap}`, '--name', 'original', '--detach');
    const clone = ['restore', idle, '--as-new', '--detach'];
    const { message } = await world.fails(2, 'USAGE', clone);
    assert.match(message, /net0 of a clone has the address of the original \(02:00:00:00:00:01\)/);
    await world.fails(2, 'USAGE', [...clone, '--net', '0:tap=tap1,create']);
    const other = namespace();
    const made = `0:tap=tap0,netns=${other.name},create,ip=${HOST}/24`;
    const { name } = await world.json<{ name: string }>(...clone, '--net', made);
    assert.notEqual(name, 'first');
    assert(network.pings(GUEST_IP), 'the original answers');
    assert(other.pings(GUEST_IP), 'the clone answers');
    await world.json('stop', name);
    assert.notEqual(other.run('ip', 'link', 'show', 'tap0').status, 0, 'the tap is removed with its machine');
    await world.json('stop', 'original');
  });

  it('reaches a guest whose network was a tap through passt, which has no offloads', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    const net = `0:user,forward=127.0.0.1:${port}:7`;
    const { name } = await world.json<{ name: string }>(
      'restore',
      idle,
      '--as-new',
      '--detach',
      '--net',
      net,
    );
    const console = open(name);
    console.send('\n');
    await console.until(PROMPT);
    // passt learns the address of the guest from what it sends.
    await console.command(`ping -c 1 -w 2 ${HOST}; echo pinged`, /\npinged\r*\n/);
    console.send('nc -l -p 7 -e /bin/busybox cat &\n');
    await console.until(PROMPT);
    await console.command(
      'while ! netstat -ltn | grep -q :7; do sleep 0.1; done; echo listens',
      /\nlistens\r*\n/,
    );
    const sent = randomBytes(PASST_BYTES);
    const socket = connect(port, '127.0.0.1');
    socket.write(sent);
    let back = Buffer.alloc(0);
    for await (const bytes of socket) {
      back = Buffer.concat([back, bytes as Buffer]);
      if (back.length >= sent.length) break;
    }
    assert(back.equals(sent), 'every byte comes back');
    await world.json('stop', name);
  });
});
