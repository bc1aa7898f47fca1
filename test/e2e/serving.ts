/** A server in a process of its own, and requests to it. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import type { World } from './cli.js';

export interface Answer<T = Record<string, unknown>> {
  readonly status: number;
  readonly type: string;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly body: T;
}

export interface Asked {
  readonly method?: string;
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
}

/** A server in a process of its own. */
export class Serving {
  private constructor(
    readonly child: ChildProcess,
    readonly socket: string,
    readonly url: string | null,
    readonly token: string,
    readonly log: () => string,
  ) {}

  static async start(world: World, ...args: string[]): Promise<Serving> {
    const child = world.spawn('serve', '--listen', '127.0.0.1:0', '--json', ...args);
    let log = '';
    child.stderr!.on('data', (part) => {
      log += part;
    });
    const line = await new Promise<string>((resolve, reject) => {
      let text = '';
      child.stdout!.on('data', (part) => {
        text += part;
        if (text.includes('\n')) resolve(text);
      });
      child.once('exit', () => reject(new Error(`serve ended: ${text}${log}`)));
    });
    const { socket, url, tokenFile } = JSON.parse(line);
    assert.equal(statSync(socket).mode & 0o777, 0o600);
    return new Serving(child, socket, url, readFileSync(tokenFile, 'utf8').trim(), () => log);
  }

  /** A request over the socket, which needs no token. */
  ask<T = Record<string, unknown>>(path: string, asked: Asked = {}): Promise<Answer<T>> {
    return send<T>({ socketPath: this.socket, path }, asked);
  }

  /** A request over TCP. */
  askTcp<T = Record<string, unknown>>(path: string, asked: Asked = {}): Promise<Answer<T>> {
    return send<T>({ host: '127.0.0.1', port: this.port, path }, asked);
  }

  get port(): number {
    return Number(new URL(this.url!).port);
  }

  get bearer(): Record<string, string> {
    return { authorization: `Bearer ${this.token}` };
  }

  /** Processor time of the server so far. */
  cpuSeconds(): number {
    const fields = readFileSync(`/proc/${this.child.pid}/stat`, 'latin1')
      .replace(/^.*\) /, '')
      .split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  }

  /** Memory of the server that no other process has. */
  memoryBytes(): number {
    const text = readFileSync(`/proc/${this.child.pid}/smaps_rollup`, 'latin1');
    return [...text.matchAll(/^Private_(?:Clean|Dirty):\s+(\d+) kB$/gm)].reduce(
      (sum, [, kib]) => sum + Number(kib) * 1024,
      0,
    );
  }

  /** Resolves to the exit status. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    if (this.child.exitCode !== null) return this.child.exitCode;
    const ended = new Promise<number | null>((resolve) => {
      this.child.once('exit', resolve);
    });
    this.child.kill(signal);
    return ended;
  }
}

function send<T>(
  where: { socketPath?: string; host?: string; port?: number; path: string },
  { method, body, headers = {} }: Asked,
): Promise<Answer<T>> {
  const text = body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      ...where,
      method: method ?? (text === null ? 'GET' : 'POST'),
      agent: false,
      headers: { ...(text === null ? {} : { 'content-type': 'application/json' }), ...headers },
    });
    request.once('error', reject);
    request.once('response', (response) => {
      let answer = '';
      response.setEncoding('utf8').on('data', (part) => {
        answer += part;
      });
      response.once('end', () => {
        const type = response.headers['content-type'] ?? '';
        resolve({
          status: response.statusCode!,
          type,
          headers: response.headers,
          body: (type.includes('json') ? JSON.parse(answer) : answer) as T,
        });
      });
    });
    request.end(text ?? undefined);
  });
}
