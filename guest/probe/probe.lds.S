/*
 * One segment, physical = virtual, with all memory that the probe uses before a command. The IDT's gates need the entry
 * code in the first 64 KiB.
 */
#include "layout.h"

ENTRY(_start)
PHDRS { image PT_LOAD FLAGS(7); }
SECTIONS
{
  . = IMAGE_BASE;
  .text : { *(.text.start) *(.text .text.*) } :image
  .rodata : { *(.rodata .rodata.*) } :image
  .data : { *(.data .data.*) } :image
  .bss : { image_bss = .; *(.bss .bss.* COMMON) . = ALIGN(8); image_end = .; } :image
  .working AREA_BASE - 8 (NOLOAD) : { . += 8; } :image
  /DISCARD/ : { *(.comment) *(.note .note.*) *(.eh_frame) }
  ASSERT(_start == IMAGE_BASE, "the entry must come first")
  ASSERT(image_end <= CPU_BLOCKS, "the image must end before CPU_BLOCKS")
}
