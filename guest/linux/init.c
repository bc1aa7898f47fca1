/*
 * Process 1 of the Linux guest: mounts what a shell expects, says `LINUX READY <release>` on the console, gives
 * ttyS0 to a login shell as its controlling terminal (Ctrl-C, Ctrl-Z and job control work), and then only reaps.
 *
 * When that shell ends, or on busybox's `reboot`, `poweroff` and `halt` (SIGTERM, SIGUSR2 and SIGUSR1 to process 1),
 * it resets the machine, which is how a machine without power management ends.
 *
 * A program and not a shell script, because where ring 0 is emulated each fork and exec of busybox takes half a
 * second; and without a C library, because unpacking 700 KB of one takes two.
 */
#include <asm/ioctls.h>
#include <asm/signal.h>
#include <asm/termios.h>
#include <linux/fcntl.h>
#include <linux/reboot.h>
#include <linux/utsname.h>
#include <linux/wait.h>
#include <sys/syscall.h>

#define TERMINAL "/dev/ttyS0"

/* The kernel's own sigset_t: one word, bit n-1 for signal n. */
#define SIGNAL_BIT(n) (1UL << ((n) - 1))
#define AWAITED (SIGNAL_BIT(SIGCHLD) | SIGNAL_BIT(SIGTERM) | SIGNAL_BIT(SIGUSR1) | SIGNAL_BIT(SIGUSR2))

static long system_call(long number, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

#define CALL(name, a, b, c, d, e) \
	system_call(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

static void print(const char *text)
{
	unsigned long length = 0;

	while (text[length] != 0)
		length++;
	CALL(write, 1, text, length, 0, 0);
}

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
	static const char *const arguments[] = { "-sh", 0 };
	static const char *const environment[] = {
		"HOME=/root", "PATH=/bin", "TERM=vt100", "PS1=\\w # ", "HISTFILE=/root/.ash_history", 0,
	};

	CALL(rt_sigprocmask, SIG_SETMASK, &unblocked, 0, sizeof(unblocked), 0);
	CALL(setsid, 0, 0, 0, 0, 0);
	if (CALL(ioctl, 0, TIOCSCTTY, 0, 0, 0) < 0)
		die("TIOCSCTTY");
	CALL(chdir, "/root", 0, 0, 0, 0);
	CALL(execve, "/bin/sh", arguments, environment, 0, 0);
	die("/bin/sh");
}

__attribute__((used)) static void run(void)
{
	const unsigned long awaited = AWAITED;
	unsigned long before = 0;
	struct new_utsname name;
	long shell;

	attach("devtmpfs", "/dev");
	open_terminal();
	attach("proc", "/proc");
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
		while ((pid = CALL(wait4, -1, 0, WNOHANG, 0, 0)) > 0)
			ended |= pid == shell;
	}
	CALL(sync, 0, 0, 0, 0, 0);
	CALL(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART, 0, 0);
	die("reboot");
}

/* The kernel enters with the stack aligned to 16 bytes, where the compiler expects a return address to lie. */
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tcall run\n");
