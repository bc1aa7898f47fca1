/**
 * How processors and interrupt controllers are wired: the facts that the MP table and ACPI's MADT both tell.
 * They are those of KVM's in-kernel irqchip.
 */

/** 8-bit APIC ids: 255 is the broadcast, and the IOAPIC takes one. */
export const MAX_CPUS = 254;

export const LAPIC_GPA = 0xfee0_0000;
export const IOAPIC_GPA = 0xfec0_0000;

/** The IOAPIC's id is the first that no processor has. */
export const ioapicId = (cpus: number): number => cpus;

export const ISA_IRQS = 16;
/** The slave 8259 hangs here; it is no device's interrupt. */
export const CASCADE_IRQ = 2;
/** The timer is wired to the IOAPIC's pin 2, every other ISA interrupt to the pin of its own number. */
export const ioapicPin = (isaIrq: number): number => (isaIrq === 0 ? 2 : isaIrq);
/** NMI comes in at every processor's LINT1, the 8259's at LINT0 of the first. */
export const EXTINT_LINT = 0;
export const NMI_LINT = 1;
