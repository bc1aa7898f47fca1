/** The client of a machine's control API (control-api.ts), over the Unix socket in its run directory. */
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { runRoot } from '../environment.js';
import { LivesnapError, type PlainError } from '../errors.js';
import type { Progress } from '../page-stream.js';
import type { MachineSaveResult, MachineState } from '../vmm/machine-types.js';
import {
  END_TRAILER,
  type EndReport,
  ID_HEADER,
  type MachineChange,
  type MachineDescription,
  PREFER_ASYNC,
  type SaveJob,
  type SaveRequest,
  type StopRequest,
  type StopResult,
} from './control-api.js';
import { RunDirectory } from './run-directory.js';
import { socketAddress } from './socket-path.js';

/** Errors of a request to a process that does not listen, or that closes its connections. */
const NOT_LISTENING = new Set(['ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EPIPE']);

interface Sent {
  readonly request: ClientRequest;
  readonly response: Promise<IncomingMessage>;
}

async function readAll(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of response as AsyncIterable<Buffer>) parts.push(part);
  return Buffer.concat(parts).toString('utf8');
}

/** The error for a machine whose process has ended. */
export async function goneError(directory: RunDirectory): Promise<LivesnapError> {
  const record = await directory.readRecord();
  return new LivesnapError(
    'MACHINE_GONE',
    record?.failure
      ? `the machine ${directory.name} failed: ${record.failure}`
      : `the process of the machine ${directory.name} has ended`,
    { hint: `Its log is ${directory.log}. To clean up: livesnap stop ${directory.name}.` },
  );
}

export const noSuchMachine = (name: string): LivesnapError =>
  new LivesnapError('NO_SUCH_MACHINE', `there is no machine named ${name}`, {
    hint: 'livesnap ps lists the machines.',
  });

/** The machine of this name. Errors: USAGE, NO_SUCH_MACHINE, MACHINE_GONE. */
export async function findMachine(name: string, root: string = runRoot()): Promise<MachineClient> {
  const directory = new RunDirectory(root, name);
  const found = await directory.look();
  if (found === 'absent') throw noSuchMachine(name);
  if (found === 'dead') throw await goneError(directory);
  return new MachineClient(directory);
}

/** How long a machine's process may take to answer what it answers at once: nothing blocks its main thread. */
const ANSWER_TIMEOUT_MS = 5_000;

export class MachineClient {
  /** `id`: of the machine that is meant. Without it, any machine in the directory answers. */
  constructor(
    readonly directory: RunDirectory,
    readonly id: string | null = null,
  ) {}

  /** The error for a machine whose process has ended. */
  goneError(): Promise<LivesnapError> {
    return goneError(this.directory);
  }

  /** Whether the record in the directory is of the machine that is meant. A machine that starts has no record. */
  async isOfRecord(): Promise<boolean> {
    return this.id === null || (await this.directory.readRecord())?.id === this.id;
  }

  /** Errors: MACHINE_GONE, NOT_POSSIBLE_NOW (it is starting, ending or too busy), and those of the API. */
  async describe(timeoutMs = ANSWER_TIMEOUT_MS): Promise<MachineDescription> {
    return JSON.parse(
      await readAll(await this.#answer('GET', '/machine', {}, AbortSignal.timeout(timeoutMs))),
    );
  }

  /** A process that is stopped or stuck would keep a caller waiting for ever. Errors: as of {@link describe}. */
  async #requireAnswer(): Promise<void> {
    await this.describe();
  }

  /** Errors: as of {@link describe}, and USAGE. */
  async change(change: MachineChange): Promise<MachineDescription> {
    await this.#requireAnswer();
    return JSON.parse(await readAll(await this.#post('PATCH', '/machine', change)));
  }

  async pause(): Promise<{ name: string; state: MachineState }> {
    await this.#requireAnswer();
    return JSON.parse(await readAll(await this.#answer('POST', '/pause')));
  }

  async resume(): Promise<{ name: string; state: MachineState }> {
    await this.#requireAnswer();
    return JSON.parse(await readAll(await this.#answer('POST', '/resume')));
  }

  /** Resolves when the machine has ended. Its process ends a little later. */
  async stop(stop: Partial<StopRequest> = {}): Promise<StopResult> {
    return JSON.parse(await readAll(await this.#post('POST', '/stop', stop)));
  }

  /** `signal` cancels the save until it is committed. */
  async save(save: SaveRequest, progress: Progress, signal?: AbortSignal): Promise<MachineSaveResult> {
    await this.#requireAnswer();
    const headers = { accept: 'application/x-ndjson', 'content-type': 'application/json' };
    const sent = this.#send('POST', '/save', headers, signal);
    sent.request.end(JSON.stringify(save));
    const response = await this.#checked(sent).catch((error: unknown) => {
      throw signal?.aborted ? signal.reason : error;
    });
    let rest = '';
    try {
      for await (const part of response.setEncoding('utf8') as AsyncIterable<string>) {
        const lines = (rest + part).split('\n');
        rest = lines.pop()!;
        for (const line of lines) {
          const message = JSON.parse(line);
          if ('progress' in message) progress(message.progress.doneBytes, message.progress.totalBytes);
          else if ('error' in message) throw LivesnapError.fromJSON(message.error);
          else return message.result;
        }
      }
    } catch (error) {
      if (error instanceof LivesnapError) throw error;
    }
    signal?.throwIfAborted();
    throw await this.#unreachable(true);
  }

  /** Begins a save, which goes on without this client. Errors: as of {@link describe}. */
  async startSave(save: SaveRequest): Promise<SaveJob> {
    await this.#requireAnswer();
    return JSON.parse(await readAll(await this.#post('POST', '/save', save, PREFER_ASYNC)));
  }

  /** Cancels a save that runs, or forgets one that has ended. Errors: NO_SUCH_JOB, as of {@link describe}. */
  async removeSave(number: number): Promise<void> {
    await this.#requireAnswer();
    await readAll(await this.#answer('DELETE', `/save?number=${number}`));
  }

  /**
   * Resolves when the viewer has joined. The stream has everything that the guest writes from then on. Errors: as of
   * {@link describe}.
   */
  async openConsole(historyBytes?: number): Promise<IncomingMessage> {
    const path = historyBytes === undefined ? '/console' : `/console?history=${historyBytes}`;
    // Not AbortSignal.timeout(), which would also end the stream later.
    const giveUp = new AbortController();
    const timer = setTimeout(() => giveUp.abort(), ANSWER_TIMEOUT_MS);
    try {
      return await this.#answer('GET', path, {}, giveUp.signal);
    } finally {
      clearTimeout(timer);
    }
  }

  /** A stream of input for the guest. It emits no error when it breaks, because then the machine is ending. */
  openInput(): ClientRequest {
    const { request, response } = this.#send('POST', '/console', {
      'content-type': 'application/octet-stream',
    });
    response.then(
      (answer) => answer.resume(),
      () => {},
    );
    request.flushHeaders();
    return request;
  }

  /** How the machine ended, after the end of its console stream; null when the stream broke. */
  static endOf(console: IncomingMessage): EndReport | null {
    const trailer = console.trailers[END_TRAILER];
    return trailer === undefined ? null : JSON.parse(decodeURIComponent(trailer));
  }

  #send(method: string, path: string, headers: Record<string, string>, signal?: AbortSignal): Sent {
    let release = () => {};
    let address: string;
    try {
      ({ address, close: release } = socketAddress(this.directory.socket));
    } catch {
      // Without the directory there is no such socket, and the connection fails.
      address = this.directory.socket.slice(0, 100);
    }
    const request = httpRequest({
      socketPath: address,
      method,
      path,
      headers: { host: 'machine', ...(this.id === null ? {} : { [ID_HEADER]: this.id }), ...headers },
      agent: false,
      ...(signal === undefined ? {} : { signal }),
    });
    request.once('close', release);
    const response = new Promise<IncomingMessage>((resolve, reject) => {
      request.once('response', resolve);
      request.on('error', reject);
    });
    return { request, response };
  }

  async #answer(
    method: string,
    path: string,
    headers: Record<string, string> = {},
    signal?: AbortSignal,
  ): Promise<IncomingMessage> {
    const sent = this.#send(method, path, headers, signal);
    sent.request.end();
    return this.#checked(sent);
  }

  #post(
    method: string,
    path: string,
    body: unknown,
    headers: Record<string, string> = {},
  ): Promise<IncomingMessage> {
    const sent = this.#send(method, path, { 'content-type': 'application/json', ...headers });
    sent.request.end(JSON.stringify(body));
    return this.#checked(sent);
  }

  async #checked({ response }: Sent): Promise<IncomingMessage> {
    let answer: IncomingMessage;
    try {
      answer = await response;
    } catch (error) {
      throw await this.#unreachable(NOT_LISTENING.has((error as NodeJS.ErrnoException).code ?? ''));
    }
    if (answer.statusCode === 200 || answer.statusCode === 202) return answer;
    const text = await readAll(answer);
    let body: { error: PlainError };
    try {
      body = JSON.parse(text);
    } catch {
      throw new LivesnapError(
        'SYSTEM',
        `the machine ${this.directory.name} answered with HTTP ${answer.statusCode}`,
      );
    }
    throw LivesnapError.fromJSON(body.error);
  }

  /** The error for a process that does not answer. `closed`: it does not listen, or broke the connection. */
  async #unreachable(closed: boolean): Promise<LivesnapError> {
    const found = await this.directory.look();
    if (found === 'dead') return goneError(this.directory);
    // A process listens before it writes its record, and stops listening only when it ends.
    const ending = closed && (await this.directory.readRecord()) !== null;
    if (found === 'absent' || ending)
      return new LivesnapError('MACHINE_GONE', `the machine ${this.directory.name} has ended`);
    return new LivesnapError('NOT_POSSIBLE_NOW', `the machine ${this.directory.name} does not answer`, {
      hint: `It may be starting or ending; its log is ${this.directory.log}.`,
    });
  }
}
