/** The terminal of a console. A part of its own, because xterm is larger than all the rest of the page. */
import { FitAddon } from '@xterm/addon-fit';
import { Terminal } from '@xterm/xterm';
import { currentSession } from '../session.js';

const HISTORY_BYTES = 65_536;
/** The server takes no more in one message. */
const MAX_INPUT_BYTES = 65_536;

export interface OpenConsole {
  close(): void;
}

/** `onEnd`: how the connection ended, in words. */
export function openConsole(element: HTMLElement, path: string, onEnd: (how: string) => void): OpenConsole {
  const terminal = new Terminal({
    fontSize: 13,
    scrollback: 5000,
    cursorBlink: true,
    screenReaderMode: true,
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(element);
  fit.fit();
  terminal.focus();
  const address = new URL(`${path}?history=${HISTORY_BYTES}`, location.href);
  address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
  const socket = new WebSocket(address, ['livesnap', `session.${currentSession() ?? ''}`]);
  socket.binaryType = 'arraybuffer';
  socket.onmessage = ({ data }) => {
    if (typeof data !== 'string') return terminal.write(new Uint8Array(data));
    const { end, error } = JSON.parse(data) as { end: string | null; error: { message: string } | null };
    onEnd(error?.message ?? `The machine has ended (${end ?? 'unknown'}).`);
  };
  socket.onclose = () => onEnd('The console is not connected.');
  const encoder = new TextEncoder();
  terminal.onData((text) => {
    const bytes = encoder.encode(text);
    for (let from = 0; from < bytes.length; from += MAX_INPUT_BYTES)
      if (socket.readyState === WebSocket.OPEN) socket.send(bytes.subarray(from, from + MAX_INPUT_BYTES));
  });
  const resize = new ResizeObserver(() => fit.fit());
  resize.observe(element);
  return {
    close() {
      resize.disconnect();
      socket.onclose = null;
      socket.close();
      terminal.dispose();
    },
  };
}
