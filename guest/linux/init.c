/*
 * Process 1 of the Linux guest: mounts what a shell expects, says `LINUX READY <release>` on the console, gives
 * ttyS0 to a shell as its controlling terminal (Ctrl-C, Ctrl-Z and job control work), and then only reaps.
 *
 * With root=/dev/… on the kernel's command line that device, an ext4 file system, becomes the root; without it the
 * initramfs stays the root. The kernel itself sets the network's addresses (ip=…).
 *
 * When that shell ends, on busybox's `reboot`, `poweroff` and `halt` (SIGTERM, SIGUSR2 and SIGUSR1 to process 1), and
 * on the power button (signal 38, from the kernel's tiny driver), it ends all processes, makes the root read-only, so
 * that its file system is clean, and turns the machine off. It resets the machine for `reboot`, and where there is no
 * ACPI: that is how a machine without power management ends.
 *
 * A program and not a shell script, because where ring 0 is emulated each fork and exec of busybox takes half a
 * second; and without a C library, because unpacking 700 KB of one takes two.
 */
#include <asm/ioctls.h>
#include <asm/signal.h>
#include <asm/termios.h>
#include <linux/fcntl.h>
#include <linux/mount.h>
#include <linux/reboot.h>
#include <linux/utsname.h>
#include <linux/wait.h>

#include "system.h"

#define TERMINAL "/dev/ttyS0"

/* The kernel's own sigset_t: one word, bit n-1 for signal n. */
#define SIGNAL_BIT(n) (1UL << ((n) - 1))
/* CONFIG_ACPI_TINY_POWER_BUTTON_SIGNAL; to systemd, too, it means "power off". */
#define SIGPOWEROFF 38
#define AWAITED \
	(SIGNAL_BIT(SIGCHLD) | SIGNAL_BIT(SIGTERM) | SIGNAL_BIT(SIGUSR1) | SIGNAL_BIT(SIGUSR2) | SIGNAL_BIT(SIGPOWEROFF))

/* Process 1 that ends makes the kernel panic; panic=-1 on the command line then resets the machine. */
static void die(const char *what)
{
	print("init: failed at ");
	print(what);
	print("\n");
	CALL(exit, 1, 0, 0, 0, 0);
}

static void attach(const char *type, const char *path)
{
	CALL(mkdir, path, 0755, 0, 0, 0);
	if (CALL(mount, type, path, type, 0, 0) < 0)
		die(path);
}

/* Copies the value of a `root=` on the kernel's command line. Returns 0 where there is none. */
static int find_root(char device[64])
{
	static char line[4096];
	long fd = CALL(open, "/proc/cmdline", O_RDONLY, 0, 0, 0);
	long length = CALL(read, fd, line, sizeof(line) - 1, 0, 0);
	const char *at = line, *value = 0;

	CALL(close, fd, 0, 0, 0, 0);
	if (length < 0)
		die("/proc/cmdline");
	while (*at != 0 && value == 0) {
		value = after(at, "root=");
		while (*at != 0 && *at++ != ' ')
			;
	}
	if (value == 0)
		return 0;
	for (int i = 0; i < 63 && *value > ' '; i++)
		*device++ = *value++;
	*device = 0;
	return 1;
}

/* The file system on `device` becomes the root. /dev, /proc and /sys are attached there next. */
static void enter_root(const char *device)
{
	CALL(mkdir, "/disk", 0755, 0, 0, 0);
	if (CALL(mount, device, "/disk", "ext4", MS_NOATIME, 0) < 0)
		die(device);
	CALL(chdir, "/disk", 0, 0, 0, 0);
	if (CALL(mount, ".", "/", 0, MS_MOVE, 0) < 0 || CALL(chroot, ".", 0, 0, 0, 0) < 0)
		die("the change of the root");
	CALL(chdir, "/", 0, 0, 0, 0);
}

/* The terminal becomes standard input, output and error. */
static void open_terminal(void)
{
	/* A serial line knows no size of its own; without one, full-screen programs guess. */
	const struct winsize size = { .ws_row = 24, .ws_col = 80 };
	long fd = CALL(open, TERMINAL, O_RDWR | O_NOCTTY, 0, 0, 0);

	if (fd < 0)
		die(TERMINAL);
	CALL(ioctl, fd, TIOCSWINSZ, &size, 0, 0);
	for (long standard = 0; standard < 3; standard++)
		CALL(dup2, fd, standard, 0, 0, 0);
	if (fd > 2)
		CALL(close, fd, 0, 0, 0, 0);
}

static void run_shell(unsigned long unblocked)
{
	static const char *const arguments[] = { "sh", 0 };
	static const char *const environment[] = {
		"HOME=/root", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=vt100", "PS1=\\w # ", "HISTFILE=/root/.ash_history", 0,
	};

	CALL(rt_sigprocmask, SIG_SETMASK, &unblocked, 0, sizeof(unblocked), 0);
	CALL(setsid, 0, 0, 0, 0, 0);
	if (CALL(ioctl, 0, TIOCSCTTY, 0, 0, 0) < 0)
		die("TIOCSCTTY");
	CALL(chdir, "/root", 0, 0, 0, 0);
	/* On a disk too: busybox is static, so it starts soon, and runs its commands without a search. */
	CALL(execve, "/bin/busybox", arguments, environment, 0, 0);
	die("/bin/busybox");
}

__attribute__((used)) static void run(void)
{
	const unsigned long awaited = AWAITED;
	unsigned long before = 0;
	struct new_utsname name;
	char device[64];
	long shell;
	int command = LINUX_REBOOT_CMD_POWER_OFF;

	attach("devtmpfs", "/dev");
	open_terminal();
	attach("proc", "/proc");
	if (find_root(device)) {
		enter_root(device);
		attach("devtmpfs", "/dev");
		attach("proc", "/proc");
		attach("tmpfs", "/run");
	}
	attach("sysfs", "/sys");

	/* Blocked before the shell exists, so that none of them is lost. */
	CALL(rt_sigprocmask, SIG_BLOCK, &awaited, &before, sizeof(awaited), 0);
	CALL(uname, &name, 0, 0, 0, 0);
	print("LINUX READY ");
	print(name.release);
	print("\n");

	shell = CALL(fork, 0, 0, 0, 0, 0);
	if (shell == 0)
		run_shell(before);
	if (shell < 0)
		die("fork");
	for (int ended = 0; !ended;) {
		long signal = CALL(rt_sigtimedwait, &awaited, 0, 0, sizeof(awaited), 0);
		long pid;

		ended = signal > 0 && signal != SIGCHLD;
		if (signal == SIGTERM)
			command = LINUX_REBOOT_CMD_RESTART;
		while ((pid = CALL(wait4, -1, 0, WNOHANG, 0, 0)) > 0)
			ended |= pid == shell;
	}
	CALL(kill, -1, SIGKILL, 0, 0, 0);
	while (CALL(wait4, -1, 0, 0, 0, 0) > 0)
		;
	CALL(sync, 0, 0, 0, 0, 0);
	CALL(mount, 0, "/", 0, MS_REMOUNT | MS_RDONLY, 0);
	/* Without ACPI the kernel cannot turn the machine off, and would only halt. */
	if (CALL(access, "/sys/firmware/acpi", 0, 0, 0, 0) < 0)
		command = LINUX_REBOOT_CMD_RESTART;
	CALL(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, command, 0, 0);
	die("reboot");
}

/* The kernel enters with the stack aligned to 16 bytes, where the compiler expects a return address to lie. */
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tcall run\n");
