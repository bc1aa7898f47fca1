/**
 * The stream of events of this tab: one, while the tab is visible. It goes on after the last event when it is lost.
 */
import { ApiError, request } from './api.js';
import { EventText } from './state/event-text.js';
import { chooseStore, hasChosenStore } from './store-choice.js';

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 10_000;
/** The server sends something every 15 s. */
const SILENCE_MS = 40_000;

export interface Listener {
  onEvent(type: string, data: unknown): void;
  /** `since`: when the connection was lost; null: it is there. */
  onConnection(since: Date | null): void;
}

/** Watches until the session ends. */
export async function watchHost({ onEvent, onConnection }: Listener): Promise<void> {
  let lastId: string | null = null;
  let retryMs = FIRST_RETRY_MS;
  let lostAt: Date | null = null;
  for (;;) {
    await visible();
    const leave = new AbortController();
    const onHidden = (): void => {
      if (document.hidden) leave.abort();
    };
    document.addEventListener('visibilitychange', onHidden);
    let silence = setTimeout(() => leave.abort(), SILENCE_MS);
    try {
      const response = await request('/v1/events', {
        signal: leave.signal,
        headers: lastId === null ? {} : { 'last-event-id': lastId },
      });
      const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
      const events = new EventText();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        clearTimeout(silence);
        silence = setTimeout(() => leave.abort(), SILENCE_MS);
        for (const { id, type, data } of events.push(value)) {
          lastId = id ?? lastId;
          onEvent(type, JSON.parse(data));
        }
        retryMs = FIRST_RETRY_MS;
        lostAt = null;
        onConnection(null);
      }
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) return;
      // The server does not have the store any more.
      if (error instanceof ApiError && error.status === 400 && hasChosenStore()) chooseStore(null);
    } finally {
      clearTimeout(silence);
      document.removeEventListener('visibilitychange', onHidden);
    }
    if (document.hidden) continue;
    lostAt ??= new Date();
    onConnection(lostAt);
    await new Promise((resolve) => setTimeout(resolve, retryMs));
    retryMs = Math.min(MAX_RETRY_MS, retryMs * 2);
  }
}

function visible(): Promise<void> {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const look = (): void => {
      if (document.hidden) return;
      document.removeEventListener('visibilitychange', look);
      resolve();
    };
    document.addEventListener('visibilitychange', look);
  });
}
