/**
 * Proves that pages equal stored chunks, on all cores (addon/page_proof.cc).
 *
 * Thread: any; a call returns when all is compared.
 */
import { addon } from './addon.js';

declare const brand: unique symbol;
interface Handle {
  readonly [brand]: 'page proof';
}

interface ProofFunctions {
  proofOpen(packsDir: string): Handle;
  proofClose(proof: Handle): void;
  proofCompare(proof: Handle, pages: Uint8Array, claims: Uint32Array, count: number, same: Uint8Array): void;
}

const CLAIM_WORDS = 4;

/** Claims that pages have the bytes of chunks, and which of them are true. */
export class PageProof {
  readonly #proof: Handle;
  readonly #claims: Uint32Array;
  readonly #same: Uint8Array;
  #count = 0;

  /** `packsDir`: path of the directory `packs` of a store. `maxClaims`: at a time. Errors: SystemError. */
  constructor(packsDir: string, maxClaims: number) {
    this.#proof = addon<ProofFunctions>().proofOpen(packsDir);
    this.#claims = new Uint32Array(maxClaims * CLAIM_WORDS);
    this.#same = new Uint8Array(maxClaims);
  }

  get count(): number {
    return this.#count;
  }

  clear(): void {
    this.#count = 0;
  }

  /** Claims that page number `page` equals a chunk. */
  claim(page: number, pack: number, generation: number, chunk: number): void {
    const word = this.#count++ * CLAIM_WORDS;
    this.#claims[word] = page;
    this.#claims[word + 1] = pack;
    this.#claims[word + 2] = generation;
    this.#claims[word + 3] = chunk;
  }

  /**
   * Compares. `pages`: those whose numbers the claims have. A chunk that cannot be read, or whose pack is there in another
   * generation, equals nothing.
   */
  prove(pages: Uint8Array): void {
    addon<ProofFunctions>().proofCompare(this.#proof, pages, this.#claims, this.#count, this.#same);
  }

  isTrue(claim: number): boolean {
    return this.#same[claim] === 1;
  }

  page(claim: number): number {
    return this.#claims[claim * CLAIM_WORDS]!;
  }

  pack(claim: number): number {
    return this.#claims[claim * CLAIM_WORDS + 1]!;
  }

  chunk(claim: number): number {
    return this.#claims[claim * CLAIM_WORDS + 3]!;
  }

  /** Closes the packs. */
  close(): void {
    addon<ProofFunctions>().proofClose(this.#proof);
  }
}
