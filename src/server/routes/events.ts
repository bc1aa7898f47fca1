/** The state of the host and its changes, as one answer or as a stream of server-sent events (WHATWG HTML, section 9.2). */
import { Readable } from 'node:stream';
import { Type } from 'typebox';
import { HttpError } from '../../machine/http-status.js';
import type { Frame } from '../feed.js';
import { DownloadQuery, Overview } from '../schemas.js';
import type { App, Service } from '../service.js';
import { endIfNotTaken } from '../stalled.js';

const MAX_STREAMS = 64;
/** A proxy or a browser ends a connection that is silent for a minute. */
const PING_MS = 15_000;
const PING = ': still here\n\n';

const toText = ({ position, event, data }: Frame): string =>
  `${position === null ? '' : `id: ${position}\n`}event: ${event}\ndata: ${data}\n\n`;

/** Frames as text, with pings where none comes. */
async function* texts(frames: AsyncGenerator<Frame>): AsyncGenerator<string> {
  let next = frames.next();
  try {
    for (;;) {
      let timer: NodeJS.Timeout | undefined;
      const silence = new Promise<null>((resolve) => {
        timer = setTimeout(resolve, PING_MS, null);
      });
      const first = await Promise.race([next, silence]);
      clearTimeout(timer);
      if (first === null) yield PING;
      else if (first.done) return;
      else {
        next = frames.next();
        next.catch(() => {}); // raced later
        yield toText(first.value);
      }
    }
  } finally {
    void frames.return(undefined).catch(() => {});
  }
}

export function eventRoutes(app: App, { stores, closing }: Service): void {
  let streams = 0;

  app.get(
    '/v1/overview',
    {
      schema: {
        summary: 'The machines, the snapshots and the store in one answer',
        querystring: DownloadQuery,
        response: { 200: Overview },
      },
    },
    async ({ query }) => stores.named(query.store).feed.overview(closing),
  );

  app.get(
    '/v1/events',
    {
      schema: {
        summary: 'Changes of the host, as server-sent events',
        description:
          'The first event is `state`, an Overview, unless the header Last-Event-ID has the ID of an event that the server still knows.',
        querystring: DownloadQuery,
        headers: Type.Object({ 'last-event-id': Type.Optional(Type.String({ maxLength: 64 })) }),
      },
    },
    async (request, reply) => {
      const { feed } = stores.named(request.query.store);
      if (streams >= MAX_STREAMS) throw new HttpError(503, 'too many clients watch', 'Close one of them.');
      streams++;
      const hungUp = new AbortController();
      const signal = AbortSignal.any([hungUp.signal, closing]);
      const { raw } = reply;
      endIfNotTaken(raw);
      raw.once('close', () => {
        streams--;
        hungUp.abort();
      });
      const frames = feed.read({ after: request.headers['last-event-id'], signal });
      const stream = Readable.from(texts(frames), { highWaterMark: 1 });
      signal.addEventListener('abort', () => stream.destroy(), { once: true });
      return reply.type('text/event-stream').send(stream);
    },
  );
}
