/**
 * The wiring of processors and interrupt controllers in KVM's in-kernel irqchip. The MP table and the ACPI MADT both
 * take these facts from here.
 */

/** An APIC ID has 8 bits: 255 is the broadcast, and the IOAPIC needs one. */
export const MAX_CPUS = 254;

export const LAPIC_GPA = 0xfee0_0000;
export const IOAPIC_GPA = 0xfec0_0000;

/** The IOAPIC has the first ID that no processor has. */
export const ioapicId = (cpus: number): number => cpus;

export const ISA_IRQS = 16;
/** The slave 8259 is connected here; no device has this interrupt. */
export const CASCADE_IRQ = 2;
/** The timer is on pin 2 of the IOAPIC, every other ISA interrupt on the pin of its own number. */
export const ioapicPin = (isaIrq: number): number => (isaIrq === 0 ? 2 : isaIrq);
/** The 8259's interrupt is on LINT0 of the first processor, NMI on LINT1 of every processor. */
export const EXTINT_LINT = 0;
export const NMI_LINT = 1;
