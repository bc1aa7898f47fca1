/**
 * Colours and styles, where a terminal has them. They repeat what the text says: nothing is told by a colour alone.
 *
 * Plain text goes to pipes and files, to a terminal that calls itself dumb, and with NO_COLOR (no-color.org), which Node
 * 20.12 does not heed by itself.
 */
import { styleText } from 'node:util';

type Style = 'dim' | 'red';

interface Stream {
  readonly isTTY?: boolean;
}

export const hasStyles = (stream: Stream, { NO_COLOR, TERM }: NodeJS.ProcessEnv = process.env): boolean =>
  Boolean(stream.isTTY) && !NO_COLOR && TERM !== 'dumb';

export const styled = (text: string, style: Style, stream: Stream): string =>
  hasStyles(stream) ? styleText(style, text) : text;
