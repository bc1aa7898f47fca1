/** docs/cli.md: its generated parts are those of the verbs in this tree, and its links lead to headings. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { VERBS } from '../../src/cli/verbs.js';
import { projectRoot } from '../../src/native/project-root.js';

const { PAGE, withGeneratedParts } = (await import(join(projectRoot, 'scripts/manual.mjs'))) as {
  PAGE: string;
  withGeneratedParts(page: string): Promise<string>;
};

/** As GitHub makes it of a heading. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replaceAll(' ', '-');

describe('docs/cli.md', () => {
  const page = readFileSync(PAGE, 'utf8');

  it('has the reference that the verbs define', async () => {
    assert.equal(page, await withGeneratedParts(page), 'it is stale: run npm run docs');
  });

  it('has every verb with its options and aliases, without hidden ones', async () => {
    const generated = await withGeneratedParts(page);
    for (const [name, { isHidden, aliases, load }] of VERBS) {
      const { verb } = await load();
      const [, section] =
        new RegExp(`\n### livesnap ${name}\n(.*?)(?=\n### |\n<!-- )`, 's').exec(generated) ?? [];
      assert.equal(section === undefined, isHidden, name);
      if (section === undefined) continue;
      assert.ok(section.includes(`\n    livesnap ${name} `), name);
      for (const alias of Object.keys(aliases)) assert.ok(section.includes(`Alias: \`${alias}`), alias);
      for (const { flags, hidden } of Object.values(verb.options))
        assert.equal(section.includes(`| \`${flags.replaceAll('|', '\\|')}\` |`), !hidden, flags);
    }
  });

  it('keeps what is written by hand, and needs its markers', async () => {
    const stale = page.replace(/(<!-- reference: .* -->)[\s\S]*(<!-- end of the reference -->)/, '$1 old $2');
    assert.notEqual(stale, page);
    assert.equal(await withGeneratedParts(stale), page);
    await assert.rejects(withGeneratedParts('# Empty'), /the page has no "<!-- list of verbs/);
  });

  it('has only links to headings that it has', () => {
    const anchors = new Set([...page.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => anchorOf(heading!)));
    for (const [, anchor] of page.matchAll(/\]\(#([^)]+)\)/g)) assert.ok(anchors.has(anchor!), anchor);
  });
});
