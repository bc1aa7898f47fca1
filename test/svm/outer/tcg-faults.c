/*
 * Loaded into every process of livesnap in the outer machine, for one fault of the emulator. No processor has it.
 *
 * QEMU's TCG (helper_check_io of 7.2) refuses ring 3's port accesses by the I/O bitmap of the TSS unless the type of TR
 * is 9, an available TSS. A loaded TSS is busy, type 11 (AMD64 manual, volume 2, 12.2.2). KVM reports 11 and restores
 * 11; LTR under TCG leaves 9. Without this the probe guest ends with #GP at its first OUT after a restore.
 */
#include <linux/kvm.h>
#include <stdarg.h>
#include <sys/syscall.h>

#define AVAILABLE_TSS 9
#define BUSY_TSS 11

long syscall(long number, ...);

int ioctl(int fd, unsigned long request, ...)
{
	struct kvm_sregs copy;
	va_list list;
	void *argument;

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	if ((unsigned int)request == (unsigned int)KVM_SET_SREGS && argument != 0) {
		copy = *(struct kvm_sregs *)argument;
		if (copy.tr.type == BUSY_TSS)
			copy.tr.type = AVAILABLE_TSS;
		argument = &copy;
	}
	return (int)syscall(SYS_ioctl, fd, request, argument);
}
