import assert from 'node:assert/strict';
import * as aml from '../../../../src/vmm/boot/aml.js';

const bytes = (hex: string) => Buffer.from(hex.replaceAll(' ', ''), 'hex');

// The expected bytes follow the grammar of ACPI 6.5, section 20.2; iasl disassembles them to the ASL in the names.
describe('the AML encoding', () => {
  it('of an integer is the shortest one', () => {
    assert.deepEqual(aml.integer(0), bytes('00'));
    assert.deepEqual(aml.integer(1), bytes('01'));
    assert.deepEqual(aml.integer(2), bytes('0a 02'));
    assert.deepEqual(aml.integer(0xff), bytes('0a ff'));
    assert.deepEqual(aml.integer(0x100), bytes('0b 00 01'));
    assert.deepEqual(aml.integer(0x10000), bytes('0c 00 00 01 00'));
    assert.deepEqual(aml.integer(0xffffffff), bytes('0c ff ff ff ff'));
    for (const value of [-1, 2 ** 32, 1.5]) assert.throws(() => aml.integer(value), RangeError);
  });

  it('of Name (_UID, 1)', () => {
    assert.deepEqual(aml.name('_UID', aml.integer(1)), bytes('08 5f 55 49 44 01'));
    assert.deepEqual(aml.nameString('\\_SB'), bytes('5c 5f 53 42 5f'));
    for (const name of ['', 'toolong', '1ABC', 'abcd']) assert.throws(() => aml.nameString(name), RangeError);
  });

  it('of EisaId ("PNP0501")', () => {
    assert.deepEqual(aml.eisaId('PNP0501'), bytes('0c 41 d0 05 01'));
    assert.throws(() => aml.eisaId('PNP05'), RangeError);
  });

  it('of Name (\\_S5, Package () {5, 5, 0, 0})', () => {
    const [five, zero] = [aml.integer(5), aml.integer(0)];
    assert.deepEqual(
      aml.name('\\_S5', aml.packageOf(five, five, zero, zero)),
      bytes('08 5c 5f 53 35 5f 12 08 04 0a 05 0a 05 00 00'),
    );
  });

  it('of ResourceTemplate () {IO (Decode16, 0x3F8, 0x3F8, 1, 8) IRQNoFlags () {4}}', () => {
    assert.deepEqual(
      aml.resourceTemplate(aml.ioPorts(0x3f8, 8), aml.isaIrq(4)),
      bytes('11 10 0a 0d 47 01 f8 03 f8 03 01 08 22 10 00 79 00'),
    );
  });

  it('of Device (COM1) {Name (_UID, 1)} within Scope (\\_SB)', () => {
    assert.deepEqual(
      aml.scope('\\_SB', aml.device('COM1', aml.name('_UID', aml.integer(1)))),
      bytes('10 13 5c 5f 53 42 5f 5b 82 0b 43 4f 4d 31 08 5f 55 49 44 01'),
    );
  });

  it('of ResourceTemplate () {Memory32Fixed (ReadWrite, 0xD0000000, 0x1000) Interrupt (…) {16}}', () => {
    assert.deepEqual(
      aml.resourceTemplate(aml.memory32Fixed(0xd000_0000, 0x1000), aml.extendedInterrupt(16)),
      bytes('11 1a 0a 17 86 09 00 01 00 00 00 d0 00 10 00 00 89 06 00 03 01 10 00 00 00 79 00'),
    );
  });

  it('of Method (_EVT, 1, Serialized) {If (LEqual (Arg0, 14)) {Notify (VGEN, 0x80)}}', () => {
    assert.deepEqual(
      aml.method(
        '_EVT',
        1,
        aml.ifThen(aml.equal(aml.argument(0), aml.integer(14)), aml.notify('VGEN', 0x80)),
      ),
      bytes('14 13 5f 45 56 54 09 a0 0c 93 68 0a 0e 86 56 47 45 4e 0a 80'),
    );
  });

  it('of a string ends with NUL', () => {
    assert.deepEqual(aml.string('AB0'), bytes('0d 41 42 30 00'));
    assert.throws(() => aml.string('ä'), RangeError);
  });

  it('of a length includes its own bytes', () => {
    const scopeOf = (length: number) => aml.scope('ABCD', Buffer.alloc(length - 4));
    assert.deepEqual(scopeOf(62).subarray(1, 2), bytes('3f'));
    assert.deepEqual(scopeOf(63).subarray(1, 3), bytes('41 04'));
    assert.deepEqual(scopeOf(0xffd).subarray(1, 3), bytes('4f ff'));
    assert.deepEqual(scopeOf(0xffe).subarray(1, 4), bytes('81 00 01'));
    assert.deepEqual(scopeOf(0xf_fffd).subarray(1, 5), bytes('c1 00 00 01'));
  });
});
