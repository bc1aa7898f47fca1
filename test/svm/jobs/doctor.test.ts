/** The host as livesnap sees it. */
import assert from 'node:assert/strict';
import { World } from '../../e2e/cli.js';

describe('an SVM host', () => {
  let world: World;
  before(() => {
    world = new World();
  });
  after(() => world.end());

  it('is what doctor reports, and nothing is wrong', async () => {
    const { ok, checks } = await world.json<{
      ok: boolean;
      checks: { name: string; state: string; message: string }[];
    }>('doctor');
    assert.ok(ok, JSON.stringify(checks, null, 2));
    const kvm = checks.find(({ name }) => name === 'kvm')!;
    assert.match(kvm.message, /^KVM \(svm\)/);
    assert.equal(kvm.state, 'ok');
  });
});
