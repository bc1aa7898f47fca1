/** A growing list of 32-bit words, kept in pieces: growing copies nothing and reserves at most one piece too much. */

const PIECE_BITS = 18;
const PIECE_WORDS = 1 << PIECE_BITS;

export class WordList {
  readonly #pieces: Uint32Array[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(words: Uint32Array): void {
    for (let done = 0; done < words.length; ) {
      const within = this.#length % PIECE_WORDS;
      if (within === 0) this.#pieces.push(new Uint32Array(PIECE_WORDS));
      const part = words.subarray(done, done + PIECE_WORDS - within);
      this.#pieces.at(-1)!.set(part, within);
      this.#length += part.length;
      done += part.length;
    }
  }

  at(index: number): number {
    return this.#pieces[index >>> PIECE_BITS]![index & (PIECE_WORDS - 1)]!;
  }

  set(index: number, word: number): void {
    this.#pieces[index >>> PIECE_BITS]![index & (PIECE_WORDS - 1)] = word;
  }
}
