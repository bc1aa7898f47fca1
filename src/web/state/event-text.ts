/** Parses a stream of server-sent events (WHATWG HTML, section 9.2.6), as far as the server uses it. Pure. */

export interface ServerEvent {
  /** Null: the event has no position. */
  readonly id: string | null;
  readonly type: string;
  readonly data: string;
}

/** Takes text as it comes, and gives the events that are complete. */
export class EventText {
  #rest = '';

  push(text: string): ServerEvent[] {
    const blocks = (this.#rest + text).split('\n\n');
    this.#rest = blocks.pop()!;
    return blocks.map(parseBlock).filter((event): event is ServerEvent => event !== null);
  }
}

/** Null: a comment. */
function parseBlock(block: string): ServerEvent | null {
  let id: string | null = null;
  let type = 'message';
  const data: string[] = [];
  for (const line of block.split('\n')) {
    const [, field, value = ''] = /^([a-z]+):? ?(.*)$/s.exec(line) ?? [];
    if (field === 'id') id = value;
    else if (field === 'event') type = value;
    else if (field === 'data') data.push(value);
  }
  return data.length === 0 ? null : { id, type, data: data.join('\n') };
}
