import assert from 'node:assert/strict';
import { adviceFor, answeredOptions } from '../../../src/cli/unknown-option.js';
import { VERBS } from '../../../src/cli/verbs.js';

describe('the answer to an option of another tool', () => {
  it('says what to write instead, in a sentence', () => {
    assert.equal(adviceFor('ps', '-a'), 'It lists all machines: leave the option out.');
    assert.equal(adviceFor('ls', '--repo'), 'To use another store: --store DIR.');
    assert.equal(
      adviceFor('check', '--read-data-subset=1/5'),
      'To verify a tenth of the data: --read-data=1/10.',
    );
    assert.equal(adviceFor('ps', '--frobnicate'), null);
    assert.equal(adviceFor('gc', '--publish'), null);
    for (const [verb, option] of answeredOptions())
      assert.match(adviceFor(verb === '*' ? 'ls' : verb, option)!, /^[A-Z].*\.$/, `${verb} ${option}`);
  });

  it('names only verbs that exist and options that they do not have', async () => {
    for (const [verb, option] of answeredOptions())
      if (verb !== '*') {
        const { verb: declared } = await VERBS.get(verb)!.load();
        const known = Object.values(declared.options).flatMap(({ flags }) => flags.split(/[ ,]+/));
        assert.ok(!known.includes(option), `${verb} has ${option}`);
      }
  });
});
