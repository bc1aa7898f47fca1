/** Patterns of names, as in a shell: `*` stands for any characters, `?` for one. Everything else stands for itself. */

export const isGlob = (text: string): boolean => /[*?]/.test(text);

/**
 * Whether the whole text matches. The time grows with the product of both lengths, also for hostile patterns: when a
 * `*` must take more, no earlier `*` is tried again.
 */
export function matchesGlob(pattern: string, text: string): boolean {
  const [wanted, given] = [[...pattern], [...text]];
  let at = 0;
  let star = -1;
  let resume = 0;
  for (let i = 0; i < given.length; ) {
    if (wanted[at] === '*') {
      star = at++;
      resume = i;
    } else if (wanted[at] === '?' || wanted[at] === given[i]) {
      at++;
      i++;
    } else if (star >= 0) {
      at = star + 1;
      i = ++resume;
    } else return false;
  }
  while (wanted[at] === '*') at++;
  return at === wanted.length;
}
