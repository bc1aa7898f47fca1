/**
 * The network of a Linux guest over a tap: how fast it sends and receives by TCP, beside TCP within the host, and how long
 * saves pause it while it sends. Needs root, and the guest that scripts/linux-guest builds.
 *
 * A transfer is repeated with more bytes until it takes a second: where the guest's kernel is emulated, a megabyte takes
 * many.
 */
import { join } from 'node:path';
import { World } from '../../test/e2e/cli.js';
import { GUEST, LinuxConsole, PROMPT } from '../../test/linux/linux-guest.js';
import { Namespace } from '../../test/namespaces.js';
import { type Entry, type Figure, quantile } from '../harness/figure.js';

const HOST = '10.92.0.1';
const GUEST_IP = '10.92.0.2';
const ROUNDS = 5;
const SAVES = 60;
const FIRST_BYTES = 1 << 18;
const MIN_MS = 1000;

/** Receives from whoever connects, and prints bytes and milliseconds. Arguments: port, address. */
const RECEIVER = `
import { createServer } from 'node:net';
createServer((socket) => {
  let bytes = 0, begun = 0;
  socket.on('data', (part) => { begun ||= performance.now(); bytes += part.length; });
  socket.on('close', () => console.log(JSON.stringify({ bytes, ms: performance.now() - begun })));
}).listen(Number(process.argv[1]), process.argv[2], () => console.log('listening'));
`;

/** Sends to whoever connects, and prints bytes and milliseconds at the end. Arguments: port, address, bytes. */
const SENDER = `
import { createServer } from 'node:net';
const part = Buffer.alloc(65536, 1), total = Number(process.argv[3]);
createServer((socket) => {
  const begun = performance.now();
  let bytes = 0;
  const push = () => {
    while (bytes < total) { bytes += part.length; if (!socket.write(part)) return; }
    socket.end();
  };
  socket.on('drain', push).on('close', () => console.log(JSON.stringify({ bytes, ms: performance.now() - begun })));
  socket.resume();
  push();
}).listen(Number(process.argv[1]), process.argv[2], () => console.log('listening'));
`;

/** Reads all that a sender has. Arguments: port, address. */
const READER = `
import { connect } from 'node:net';
connect(Number(process.argv[1]), process.argv[2]).resume();
`;

interface Transfer {
  readonly bytes: number;
  readonly ms: number;
}

const megabytesPerSecond = ({ bytes, ms }: Transfer): number => bytes / 1000 / ms;

class Bench {
  readonly #world = new World();
  readonly #network = new Namespace();
  #console: LinuxConsole | null = null;
  #lastPort = 9100;

  async boot(): Promise<void> {
    this.#network.addTap('tap0', `${HOST}/24`);
    await this.#world.json(
      ...['start', '--kernel', join(GUEST, 'vmlinux'), '--initrd', join(GUEST, 'initrd'), '--memory', '128M'],
      ...['--cmdline', `console=ttyS0 reboot=t panic=-1 ip=${GUEST_IP}::${HOST}:255.255.255.0::eth0:off`],
      ...['--net', `tap=tap0,netns=${this.#network.name}`, '--detach', '--name', 'guest'],
    );
    this.#console = new LinuxConsole(this.#world.spawn('console', 'guest'));
    await this.#console.until(/LINUX READY/);
    await this.#console.until(PROMPT);
  }

  /** `transfer` moves at least so many bytes; the values are MB/s. */
  async rates(transfer: (bytes: number) => Promise<Transfer>): Promise<number[]> {
    let bytes = FIRST_BYTES;
    for (let found = await transfer(bytes); found.ms < MIN_MS; found = await transfer(bytes))
      bytes = Math.ceil(bytes * Math.max(2, (1.2 * MIN_MS) / Math.max(1, found.ms)));
    const rates: number[] = [];
    for (let i = 0; i < ROUNDS; i++) rates.push(megabytesPerSecond(await transfer(bytes)));
    return rates;
  }

  async withinHost(bytes: number): Promise<Transfer> {
    const port = ++this.#lastPort;
    const sent = await this.#listen(SENDER, port, bytes);
    this.#network.script(READER, `${port}`, HOST);
    return sent();
  }

  async fromGuest(bytes: number): Promise<Transfer> {
    const port = ++this.#lastPort;
    const received = await this.#listen(RECEIVER, port);
    await this.#console!.command(
      `dd if=/dev/zero bs=64k count=${Math.ceil(bytes / 65536)} 2>/dev/null | nc ${HOST} ${port}; echo sent`,
      /\nsent\r*\n/,
    );
    return received();
  }

  async toGuest(bytes: number): Promise<Transfer> {
    const port = ++this.#lastPort;
    const sent = await this.#listen(SENDER, port, bytes);
    // nc ends early when its standard input does.
    const counted = await this.#console!.command(`nc ${HOST} ${port} | wc -c`, /\n(\d+)\r*\n/);
    const transfer = await sent();
    if (Number(counted[1]) !== transfer.bytes)
      throw new Error(`the guest received ${counted[1]} of ${transfer.bytes} bytes`);
    return transfer;
  }

  /** Milliseconds of the pauses of saves while the guest sends without end. */
  async pauses(): Promise<number[]> {
    const port = ++this.#lastPort;
    await this.#listen(RECEIVER, port);
    this.#console!.send(`dd if=/dev/zero bs=64k 2>/dev/null | nc ${HOST} ${port}\n`);
    const pauses: number[] = [];
    for (let i = 0; i < SAVES; i++)
      pauses.push((await this.#world.json<{ pauseMs: number }>('save', 'guest')).pauseMs);
    return pauses;
  }

  async end(): Promise<void> {
    this.#console?.close();
    await this.#world.end();
    this.#network.remove();
  }

  /** Starts a script that listens. The function resolves to the transfer that it prints. */
  async #listen(script: string, port: number, ...args: number[]): Promise<() => Promise<Transfer>> {
    const next = this.#network.script(script, `${port}`, HOST, ...args.map(String));
    if ((await next()) !== 'listening') throw new Error(`nothing listens on port ${port}`);
    return async () => JSON.parse((await next())!);
  }
}

async function measure(): Promise<readonly Figure[]> {
  const bench = new Bench();
  try {
    await bench.boot();
    const reference = {
      name: 'TCP within the host',
      values: await bench.rates((bytes) => bench.withinHost(bytes)),
    };
    const common = { unit: 'MB/s', isRate: true, reference, target: null, margin: 4 } as const;
    const figures: Figure[] = [
      {
        ...common,
        name: 'tap: the guest sends',
        values: await bench.rates((bytes) => bench.fromGuest(bytes)),
      },
      {
        ...common,
        name: 'tap: the guest receives',
        values: await bench.rates((bytes) => bench.toGuest(bytes)),
      },
    ];
    const pauses = await bench.pauses();
    const rest = { unit: 'ms', reference: null, margin: 4 } as const;
    return [
      ...figures,
      {
        ...rest,
        name: `tap: p99 of ${SAVES} pauses while it sends`,
        values: [quantile(pauses, 0.99)],
        target: 10,
      },
      { ...rest, name: 'tap: pauses while it sends', values: pauses, target: null },
    ];
  } finally {
    await bench.end();
  }
}

export const entry: Entry = { summary: 'the network of a Linux guest over a tap (root)', measure };
