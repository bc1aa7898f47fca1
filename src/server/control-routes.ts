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
  LINE_HEADER,
  type MachineDescription,
  type SaveRequest,
} from './control-api.js';
import { bodyParts, parseDiscard, parseHistory, readSave, requireNoBody } from './control-requests.js';

const PROGRESS_INTERVAL_MS = 100;
const INPUT_PIECE_BYTES = 4096;
const INPUT_RETRY_MS = 20;

/** The machine as the routes use it. */
export interface ControlledMachine {
  readonly console: ConsoleHub;
  /** Null while the machine has not ended. */
  readonly end: MachineEnd | null;
  describe(): MachineDescription;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** `discard`: what was written to disks that end with the machine is lost. Errors: DISKS_NOT_SAVED. */
  stop(options: { discard: boolean }): Promise<void>;
  save(request: SaveRequest, progress: Progress): Promise<MachineSaveResult>;
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

/** Answers with the machine's name and its state afterwards. */
const transition =
  (operation: (machine: ControlledMachine, query: URLSearchParams) => Promise<void>): Handler =>
  async ({ machine, request, response, query }) => {
    await requireNoBody(request);
    await operation(machine, query);
    const { name, state } = machine.describe();
    sendJson(response, 200, { name, state });
  };

async function postSave({ machine, request, response, isOverTcp }: Exchange): Promise<void> {
  const save = await readSave(request, isOverTcp);
  if (!(request.headers.accept ?? '').includes('application/x-ndjson')) {
    sendJson(response, 200, await machine.save(save, () => {}));
    return;
  }
  const sendLine = (value: unknown) => response.write(`${JSON.stringify(value)}\n`);
  response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
  let lastMs = 0;
  try {
    const result = await machine.save(save, (doneBytes, totalBytes) => {
      const nowMs = performance.now();
      if (nowMs - lastMs < PROGRESS_INTERVAL_MS) return;
      lastMs = nowMs;
      sendLine({ progress: { doneBytes, totalBytes } });
    });
    sendLine({ result });
  } catch (error) {
    sendLine({ error: asLivesnapError(error).toJSON() });
  }
  response.end();
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
  '/machine': { GET: getMachine },
  '/pause': { POST: transition((machine) => machine.pause()) },
  '/resume': { POST: transition((machine) => machine.resume()) },
  '/stop': { POST: transition((machine, query) => machine.stop({ discard: parseDiscard(query) })) },
  '/save': { POST: postSave },
  '/console': { GET: getConsole, POST: postConsole },
};
