/**
 * The pages that the probe guest's `fill` and `text` write, made anew from the words of guest/probe/README.md, so
 * that a test knows what a guest's RAM must hold without asking the guest.
 */
const PAGE_BYTES = 4096;
const MASK = (1n << 64n) - 1n;
const GOLDEN_GAMMA = 0x9e3779b97f4a7c15n;

const WORDS =
  `the of and to in page is that it memory was for on are with as they be at one have this from or had
  by word but not what all were we when your can said there use an each which she do how their if will up other
  about out many then them these so some her would make like him into`.split(/\s+/);

function mix64(value: bigint): bigint {
  let x = value & MASK;
  x = ((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  x = ((x ^ (x >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return x ^ (x >> 31n);
}

function* splitMix64(seed: bigint, index: bigint): Generator<bigint, never> {
  let state = mix64(mix64(seed + GOLDEN_GAMMA) + index);
  for (;;) {
    state = (state + GOLDEN_GAMMA) & MASK;
    yield mix64(state);
  }
}

/** Page `index` of `fill SEED`. */
export function fillPage(seed: bigint, index: bigint): Buffer {
  const page = Buffer.alloc(PAGE_BYTES);
  const random = splitMix64(seed, index);
  for (let at = 0; at < PAGE_BYTES; at += 8) page.writeBigUInt64LE(random.next().value, at);
  return page;
}

/** Page `index` of `text SEED`. */
export function textPage(seed: bigint, index: bigint): Buffer {
  let text = `text ${seed} page ${index}\n`;
  const random = splitMix64(seed, index);
  let bits = 0n;
  for (let n = 0; text.length < PAGE_BYTES; n++) {
    if (n % 10 === 0) bits = random.next().value;
    text += WORDS[Number(bits & 63n)] + (n % 12 === 11 ? '\n' : ' ');
    bits >>= 6n;
  }
  return Buffer.from(text.slice(0, PAGE_BYTES), 'ascii');
}
