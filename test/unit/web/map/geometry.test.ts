import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  CLASS,
  COLUMNS,
  cellOf,
  columnsFor,
  countsOf,
  describeCell,
  folded,
  hueOf,
  isHatched,
  moved,
  rowsOf,
} from '../../../../src/web/map/geometry.js';

describe('the geometry of a page map', () => {
  it('shows of a cell what a person should know first', () => {
    assert.equal(hueOf(0), 'zero');
    assert.equal(hueOf(CLASS.shared | CLASS.changed), 'shared');
    assert.equal(hueOf(CLASS.shared | CLASS.own), 'own');
    assert.equal(hueOf(CLASS.own | CLASS.damaged), 'damaged');
    assert(!isHatched(CLASS.own, 0, 0) && isHatched(CLASS.own | CLASS.changed, 3, 0));
    assert(!isHatched(CLASS.damaged | CLASS.changed, 3, 0), 'damage is never hidden');
    assert.equal(
      describeCell(CLASS.own | CLASS.shared | CLASS.changed, 8),
      '8 pages: own and shared, changed',
    );
    assert.equal(describeCell(0, 1), 'zero');
  });

  it('moves by cells and rows, and stays inside', () => {
    const cells = 1000;
    assert.equal(moved(0, 'ArrowRight', cells), 1);
    assert.equal(moved(0, 'ArrowLeft', cells), 0);
    assert.equal(moved(5, 'ArrowDown', cells), 517);
    assert.equal(moved(600, 'ArrowDown', cells), 600, 'there is no cell below');
    assert.equal(moved(517, 'ArrowUp', cells), 5);
    assert.equal(moved(7, 'End', cells), 999);
    assert.equal(moved(7, 'x', cells), 7);
  });

  it('has no column that is narrower than a pixel, and loses no class by that', () => {
    assert.deepEqual([0, 1, 255, 256, 340, 511, 512, 4000].map(columnsFor), [
      ...[1, 1, 128, 256, 256, 256, 512, 512],
    ]);
    fc.assert(
      fc.property(
        fc.uint8Array({ max: 15, maxLength: 3 * COLUMNS }),
        fc.constantFrom(...[512, 256, 128, 1]),
        (cells, columns) => {
          const fewer = folded(cells, columns);
          assert.equal(fewer.length, Math.ceil(cells.length / (COLUMNS / columns)));
          cells.forEach((cell, i) => {
            const [column, row] = [i % COLUMNS, Math.floor(i / COLUMNS)];
            const shown = fewer[row * columns + Math.floor(column / (COLUMNS / columns))]!;
            assert.equal(shown & cell, cell);
          });
          assert.equal(
            fewer.reduce((all, cell) => all | cell, 0),
            cells.reduce((all, cell) => all | cell, 0),
          );
        },
      ),
    );
  });

  it('keeps the cursor at its page when other cells are shown', () => {
    assert.equal(cellOf(1030, 0, 8, 1000), 128);
    assert.equal(cellOf(1030, 1024, 1, 512), 6);
    assert.equal(cellOf(5, 1024, 1, 512), 0, 'the nearest');
    assert.equal(cellOf(9999, 1024, 1, 512), 511);
    assert.equal(cellOf(5, 0, 1, 0), 0);
  });

  it('counts the classes of each row', () => {
    const cells = new Uint8Array(600);
    cells.fill(CLASS.own | CLASS.changed, 0, 10);
    cells.fill(CLASS.shared, 512, 520);
    assert.equal(rowsOf(cells.length), 2);
    assert.deepEqual(countsOf(cells, 4, 2048), [
      { firstPage: 2048, zero: 502, shared: 0, own: 10, damaged: 0, changed: 10 },
      { firstPage: 4096, zero: 80, shared: 8, own: 0, damaged: 0, changed: 0 },
    ]);
  });
});
