/*
 * The bzImage around the probe: boot sector with the setup header, one setup sector, and the protected-mode code. Its
 * 64-bit entry copies the flat image that follows it to IMAGE_BASE and jumps there. pack.mjs appends flat image and
 * payload, and fills in the fields marked `packed`. The 16- and 32-bit entries only stop.
 *
 * Header: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
 */
#include "layout.h"

#define SETUP_SECTORS 1
#define SETUP_BYTES (512 * (SETUP_SECTORS + 1))
#define LOAD_ADDRESS 0x100000

.text
image:
.org 0x1f1
  .byte SETUP_SECTORS
  .word 0                           /* root_flags */
  .long 0                           /* syssize, packed */
  .word 0                           /* ram_size */
  .word 0xffff                      /* vid_mode: normal */
  .word 0                           /* root_dev */
  .word 0xaa55                      /* boot_flag */
  .byte 0xeb, stopped16 - image - 0x202 /* jump */
  .ascii "HdrS"
  .word 0x020f                      /* version 2.15 */
  .long 0                           /* realmode_swtch */
  .word 0                           /* start_sys_seg */
  .word kernel_version - image - 0x200
  .byte 0                           /* type_of_loader */
  .byte 0x01                        /* loadflags: LOADED_HIGH */
  .word 0                           /* setup_move_size */
  .long LOAD_ADDRESS                /* code32_start */
  .long 0, 0                        /* ramdisk_image, ramdisk_size */
  .long 0                           /* bootsect_kludge */
  .word 0                           /* heap_end_ptr */
  .byte 0, 0                        /* ext_loader_ver, ext_loader_type */
  .long 0                           /* cmd_line_ptr */
  .long 0x7fffffff                  /* initrd_addr_max */
  .long 0x200000                    /* kernel_alignment */
  .byte 0                           /* relocatable_kernel: no */
  .byte 21                          /* min_alignment, a power of two */
  .word 0x0001                      /* xloadflags: XLF_KERNEL_64 */
  .long 2047                        /* cmdline_size */
  .long 0                           /* hardware_subarch */
  .quad 0                           /* hardware_subarch_data */
  .long 0                           /* payload_offset, packed */
  .long 0                           /* payload_length, packed */
  .quad 0                           /* setup_data */
  .quad LOAD_ADDRESS                /* pref_address */
  .long AREA_BASE - LOAD_ADDRESS    /* init_size: all memory that the probe uses before a command */
  .long 0                           /* handover_offset */
  .long 0                           /* kernel_info_offset */

.code16
stopped16:
  cli
  hlt
  jmp stopped16
kernel_version:
  .asciz "livesnap probe"

.org SETUP_BYTES
.code32
stopped32:
  cli
  hlt
  jmp stopped32

.org SETUP_BYTES + 0x200
.code64
  cli
  cld
  mov %rsi, %rdx
  lea flat(%rip), %rsi
  mov $IMAGE_BASE, %edi
  mov flat_words(%rip), %ecx
  rep movsq
  mov %rdx, %rsi
  mov $IMAGE_BASE, %eax
  jmp *%rax

.balign 8
.org SETUP_BYTES + 0x248
flat_words:
  .long 0                           /* packed: the flat image's length in 8-byte words */
.balign 8
flat:

.section .note.GNU-stack, "", @progbits
