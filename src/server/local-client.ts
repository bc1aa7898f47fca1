/** Requests to the server of this user, over its Unix socket. */
import { request } from 'node:http';
import { LivesnapError } from '../errors.js';
import { socketAddress } from '../machine/socket-path.js';

const TIMEOUT_MS = 10_000;

/** Errors: NOT_POSSIBLE_NOW (no server runs), and what the server refuses. */
export async function askServer<T>(socket: string, method: string, path: string, body: unknown): Promise<T> {
  const { status, text } = await send(socket, method, path, JSON.stringify(body));
  const answer = JSON.parse(text);
  if (status < 400) return answer;
  const { code = 'SYSTEM', detail = `the server answered ${status}`, hint = null } = answer;
  throw LivesnapError.fromJSON({ code, message: detail, hint });
}

function send(
  socket: string,
  method: string,
  path: string,
  body: string,
): Promise<{ status: number; text: string }> {
  const { address, close } = socketAddress(socket);
  return new Promise((resolve, reject) => {
    const sent = request({
      ...{ socketPath: address, method, path, agent: false, signal: AbortSignal.timeout(TIMEOUT_MS) },
      headers: {
        host: 'host',
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
      },
    });
    sent.once('close', close);
    sent.once('error', (cause: NodeJS.ErrnoException) =>
      reject(
        new LivesnapError(
          'NOT_POSSIBLE_NOW',
          cause.code === 'ENOENT'
            ? `no server answers: ${socket} does not exist`
            : `no server answers on ${socket}: ${cause.message}`,
          {
            hint: 'Start one: livesnap serve.',
            cause,
          },
        ),
      ),
    );
    sent.once('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part) => {
        text += part;
      });
      response.once('end', () => resolve({ status: response.statusCode!, text }));
      response.once('error', reject);
    });
    sent.end(body);
  });
}
