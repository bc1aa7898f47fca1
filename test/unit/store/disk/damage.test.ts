import assert from 'node:assert/strict';
import { DamageError, rangeOf } from '../../../../src/store/disk/damage.js';

describe('DamageError', () => {
  const damage = new DamageError('packs/1', 32, 'it is torn');
  const disk = { name: 'disk1', sizeBytes: 5000 };

  it('says what it knows of the snapshot: nothing, its ID, its region, and where', () => {
    assert.deepEqual(
      [
        damage,
        damage.in('a'),
        damage.in('a', rangeOf(disk, null, 4096)),
        damage.in('a', rangeOf(disk, 4096, 4096)),
        damage.in('a', rangeOf({ name: 'ram@0x0', sizeBytes: 1 << 20 }, 4096, 4096)),
      ].map(({ message }) => message),
      [
        'packs/1 at offset 32: it is torn',
        'snapshot a is damaged: packs/1 at offset 32: it is torn',
        'snapshot a is damaged: disk1 cannot be read: packs/1 at offset 32: it is torn',
        'snapshot a is damaged: disk1 offset 0x1000 to 0x1388 cannot be read: packs/1 at offset 32: it is torn',
        'snapshot a is damaged: 0x1000 to 0x2000 of ram@0x0 cannot be read: packs/1 at offset 32: it is torn',
      ],
    );
  });

  it('has the same as fields', () => {
    const file = { file: 'packs/1', offset: 32 };
    assert.deepEqual(damage.damage, {
      ...{ ...file, snapshot: null, region: null },
      ...{ fromBytes: null, toBytes: null },
    });
    assert.deepEqual(damage.in('a', rangeOf(disk, 4096, 4096)).damage, {
      ...{ ...file, snapshot: 'a', region: 'disk1' },
      ...{ fromBytes: 4096, toBytes: 5000 },
    });
  });

  it('keeps what the reader named first, who knew it better', () => {
    const named = damage.in('a', rangeOf(disk, 0, 4096));
    assert.equal(named.in('b'), named);
    assert.equal(damage.part, null);
  });
});
