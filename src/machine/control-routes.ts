/** The routes of the control API (docs/api.md): which method and path calls what on the machine. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { asLivesnapError, LivesnapError } from '../errors.js';
import type { Progress } from '../page-stream.js';
import type { MachineEnd, MachineSaveResult } from '../vmm/machine-types.js';
import type { ConsoleHub } from './console-hub.js';
import {
  END_TRAILER,
  type EndReport,
  HISTORY_HEADER,
  LINE_HEADER,
  type MachineChange,
  type MachineDescription,
  type SaveJob,
  type SaveRequest,
  type StopRequest,
  type StopResult,
} from './control-api.js';
import {
  bodyParts,
  parseHistory,
  parseNumber,
  readChange,
  readSave,
  readStop,
  requireNoBody,
} from './control-requests.js';
import { prefers } from './prefer.js';

const PROGRESS_INTERVAL_MS = 100;
const INPUT_PIECE_BYTES = 4096;
const INPUT_RETRY_MS = 20;

/** The machine as the routes use it. */
export interface ControlledMachine {
  readonly id: string;
  readonly name: string;
  readonly console: ConsoleHub;
  /** Null while the machine has not ended. */
  readonly end: MachineEnd | null;
  /** Counts what has changed since the last save, if the last count is too old. */
  describe(): MachineDescription;
  change(change: MachineChange): Promise<void>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  stop(request: StopRequest): Promise<StopResult>;
  /** `signal` cancels the save until it is committed. */
  save(request: SaveRequest, progress: Progress, signal: AbortSignal): Promise<MachineSaveResult>;
  /** As `save`, which goes on without the caller. */
  startSave(request: SaveRequest): SaveJob;
  /** Cancels a save that runs, or forgets one that has ended. Errors: NO_SUCH_JOB. */
  removeSave(number: number): void;
  /** Errors: NOT_POSSIBLE_NOW while too much input waits for the guest, MACHINE_GONE. */
  writeConsole(bytes: Uint8Array): void;
}

/** A request and its answer. */
export interface Exchange {
  readonly machine: ControlledMachine;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly query: URLSearchParams;
  readonly isOverTcp: boolean;
}

export type Handler = (exchange: Exchange) => Promise<void>;

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  const json = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(json),
    'cache-control': 'no-store',
  });
  response.end(json);
}

async function getMachine({ machine, response }: Exchange): Promise<void> {
  sendJson(response, 200, machine.describe());
}

async function patchMachine({ machine, request, response }: Exchange): Promise<void> {
  await machine.change(await readChange(request));
  sendJson(response, 200, machine.describe());
}

/** Answers with the machine's name and its state afterwards. */
const transition =
  (operation: 'pause' | 'resume'): Handler =>
  async ({ machine, request, response }) => {
    await requireNoBody(request);
    await machine[operation]();
    const { name, state } = machine.describe();
    sendJson(response, 200, { name, state });
  };

async function postStop({ machine, request, response }: Exchange): Promise<void> {
  sendJson(response, 200, await machine.stop(await readStop(request)));
}

/** Aborts when the client disconnects before it has the whole answer. */
function hangUpSignal(response: ServerResponse): AbortSignal {
  const hangUp = new AbortController();
  response.once('close', () => {
    if (!response.writableFinished)
      hangUp.abort(new LivesnapError('NOT_POSSIBLE_NOW', 'the save was cancelled: its client disconnected'));
  });
  return hangUp.signal;
}

async function postSave({ machine, request, response, isOverTcp }: Exchange): Promise<void> {
  const signal = hangUpSignal(response);
  const save = await readSave(request, isOverTcp);
  if (prefers(request.headers, 'respond-async')) {
    sendJson(response, 202, machine.startSave(save));
    return;
  }
  if (!(request.headers.accept ?? '').includes('application/x-ndjson')) {
    sendJson(response, 200, await machine.save(save, () => {}, signal));
    return;
  }
  const sendLine = (value: unknown) => response.write(`${JSON.stringify(value)}\n`);
  response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
  let lastMs = 0;
  try {
    const progress: Progress = (doneBytes, totalBytes) => {
      const nowMs = performance.now();
      if (nowMs - lastMs < PROGRESS_INTERVAL_MS) return;
      lastMs = nowMs;
      sendLine({ progress: { doneBytes, totalBytes } });
    };
    const result = await machine.save(save, progress, signal);
    sendLine({ result });
  } catch (error) {
    sendLine({ error: asLivesnapError(error).toJSON() });
  }
  response.end();
}

async function deleteSave({ machine, request, response, query }: Exchange): Promise<void> {
  await requireNoBody(request);
  machine.removeSave(parseNumber(query));
  sendJson(response, 200, machine.describe());
}

const endReport = (end: MachineEnd): EndReport => ({
  kind: end.kind,
  error: end.kind === 'failed' ? end.error.toJSON() : null,
});

async function getConsole({ machine, response, query }: Exchange): Promise<void> {
  const historyBytes = parseHistory(query);
  response.writeHead(200, {
    'content-type': 'application/octet-stream',
    'cache-control': 'no-store',
    trailer: END_TRAILER,
    [HISTORY_HEADER]: machine.console.historyBytes(historyBytes),
    [LINE_HEADER]: machine.console.atLineStart ? 'new' : 'begun',
  });
  // A viewer that has these headers receives everything that the guest writes from now on.
  response.flushHeaders();
  const leave = machine.console.join(response, historyBytes, () => {
    if (machine.end !== null)
      response.addTrailers({ [END_TRAILER]: encodeURIComponent(JSON.stringify(endReport(machine.end))) });
    response.end();
  });
  response.once('close', leave);
}

/** Writes to the console as soon as there is room for the input. Meanwhile the sender waits. */
async function writeWhenPossible(
  machine: ControlledMachine,
  bytes: Uint8Array,
  request: IncomingMessage,
): Promise<void> {
  while (!request.socket.destroyed) {
    try {
      machine.writeConsole(bytes);
      return;
    } catch (error) {
      if (!(error instanceof LivesnapError) || error.code !== 'NOT_POSSIBLE_NOW') throw error;
    }
    await sleep(INPUT_RETRY_MS);
  }
}

async function postConsole({ machine, request, response }: Exchange): Promise<void> {
  let bytes = 0;
  // Each part goes to the guest as it arrives, so that one long request serves a keyboard.
  for await (const part of bodyParts(request)) {
    for (let from = 0; from < part.length; from += INPUT_PIECE_BYTES) {
      const piece = part.subarray(from, from + INPUT_PIECE_BYTES);
      await writeWhenPossible(machine, piece, request);
      bytes += piece.length;
    }
  }
  sendJson(response, 200, { bytes });
}

/** By path and method. */
export const ROUTES: Readonly<Record<string, Readonly<Record<string, Handler>>>> = {
  '/machine': { GET: getMachine, PATCH: patchMachine },
  '/pause': { POST: transition('pause') },
  '/resume': { POST: transition('resume') },
  '/stop': { POST: postStop },
  '/save': { POST: postSave, DELETE: deleteSave },
  '/console': { GET: getConsole, POST: postConsole },
};
