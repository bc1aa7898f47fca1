/**
 * The interface of remotes that only give files, such as web servers. File names are those of a store's directory
 * (docs/format.md): `tags/first`, `packs/00000001-0.pack`.
 *
 * Invariants for implementations:
 * - The remote is hostile: the length of each response is checked, and never more is passed on than was asked for.
 * - Errors of each method: REMOTE_FAILED, and those of the sink.
 */

/** Called with the bytes of a file as they arrive. */
export type ByteSink = (part: Buffer) => void;

export interface RemoteFiles {
  /** The address of the store's directory, for errors. Ends with a slash. */
  readonly base: string;
  /** Total of all bytes received so far. */
  readonly fetchedBytes: number;
  /** Reads a file of at most `maxBytes`. Returns its size, or null when it does not exist. */
  readWhole(file: string, maxBytes: number, sink: ByteSink): Promise<number | null>;
  /**
   * Reads the last `length` bytes of a file of at most `maxBytes` (all of a shorter one). Returns them with the size of
   * the file, or null when it does not exist. If the remote does not support ranges, `wholeSink` gets the whole file
   * and `bytes` is null.
   */
  readTail(
    file: string,
    length: number,
    maxBytes: number,
    wholeSink: ByteSink,
  ): Promise<{ readonly sizeBytes: number; readonly bytes: Buffer | null } | null>;
  /**
   * The names of the files in a folder of the store, as far as they match `name`. The remote may list others, and some
   * that do not exist. Null: it lists none.
   */
  list(folder: string, name: RegExp): Promise<string[] | null>;
  /** Reads exactly the bytes `from` to `to`, the latter excluded. Only for remotes that support ranges. */
  readRange(file: string, from: number, to: number, sink: ByteSink): Promise<void>;
}
