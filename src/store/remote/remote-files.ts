/**
 * The files of a store elsewhere, for remotes that give files and nothing more: a web server, say. Names are those of a
 * store's directory (docs/format.md): `tags/first`, `packs/00000001-0.pack`.
 *
 * Invariants: the other side is hostile; the length of what it gives is checked before it is passed on, and no more is
 * taken than was asked for. Errors of each: REMOTE_FAILED, and those of `take`.
 */

/** Gets the bytes of a file as they come. */
export type Take = (part: Buffer) => void;

export interface RemoteFiles {
  /** The address of the store's directory, for errors; it ends with a slash. */
  readonly base: string;
  /** What has come so far, of all files. */
  readonly fetchedBytes: number;
  /** A whole file of at most `maxBytes`; gives its size, or null when there is none. */
  whole(file: string, maxBytes: number, take: Take): Promise<number | null>;
  /**
   * The last `length` bytes of a file of at most `maxBytes` (all of a shorter one), and its size; null when there is
   * none. From a side that gives no parts `takeWhole` gets the whole file, and `bytes` is null.
   */
  tail(
    file: string,
    length: number,
    maxBytes: number,
    takeWhole: Take,
  ): Promise<{ readonly sizeBytes: number; readonly bytes: Buffer | null } | null>;
  /** Exactly the bytes of a file from `from` up to `to`. Not for a side that gives no parts. */
  range(file: string, from: number, to: number, take: Take): Promise<void>;
}
