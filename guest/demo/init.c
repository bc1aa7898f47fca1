/*
 * Process 1 of `livesnap demo` where the kernel is one of the host's own: it counts on the console, and fills memory when
 * it is told to. It speaks as the probe guest does (guest/probe/README.md), as far as the demo needs it:
 *
 *   TICK <n> nonce=<16 hex>   five times a second
 *   text <seed> <MiB>         fills memory with text, and answers `OK text: <MiB> MiB used`
 *   fill <seed> <MiB>         the same with noise
 *
 * It is the only program of the initramfs, and needs no C library.
 */
#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/poll.h>
#include <linux/time.h>
#include <linux/time_types.h>

#include "../linux/system.h"

#define TERMINAL "/dev/ttyS0"
#define TICK_NS 200000000ull
#define SECOND_NS 1000000000ull
#define MIB_SHIFT 20
#define MAX_MIB 65536
#define LINE_BYTES 128
/* Of getrandom(2): an early boot has little entropy, and the nonce is no secret. */
#define INSECURE 4

/* Process 1 that ends makes the kernel panic; panic=-1 on the command line then ends the machine. */
static void die(const char *what)
{
	print("init: failed at ");
	print(what);
	print("\n");
	CALL(exit, 1, 0, 0, 0, 0);
}

static uint64_t now_ns(void)
{
	struct __kernel_timespec now = { 0 };

	CALL(clock_gettime, CLOCK_MONOTONIC, &now, 0, 0, 0);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* The terminal becomes standard input, output and error. An echo could divide a line of output. */
static void open_terminal(void)
{
	struct termios modes;
	long fd;

	CALL(mkdir, "/dev", 0755, 0, 0, 0);
	/* The kernel may have mounted it already. */
	CALL(mount, "devtmpfs", "/dev", "devtmpfs", 0, 0);
	fd = CALL(open, TERMINAL, O_RDWR | O_NOCTTY, 0, 0, 0);
	if (fd < 0)
		die(TERMINAL);
	for (long standard = 0; standard < 3; standard++)
		CALL(dup2, fd, standard, 0, 0, 0);
	if (CALL(ioctl, fd, TCGETS, &modes, 0, 0) < 0)
		die("TCGETS");
	modes.c_lflag &= ~(tcflag_t)ECHO;
	CALL(ioctl, fd, TCSETS, &modes, 0, 0);
}

static void print_decimal(uint64_t value)
{
	char digits[21];
	char *digit = digits + sizeof(digits);

	*--digit = 0;
	do {
		*--digit = (char)('0' + value % 10);
		value /= 10;
	} while (value != 0);
	print(digit);
}

static void print_hex(uint64_t value)
{
	char digits[17];

	digits[16] = 0;
	for (int i = 15; i >= 0; i--, value >>= 4)
		digits[i] = "0123456789abcdef"[value & 15];
	print(digits);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Eight characters at a time: of a few words, or noise. */
static void fill(uint64_t *at, uint64_t count, uint64_t seed, int is_text)
{
	static const char words[8][9] = {
		"machine ", "memory  ", "restore ", "running ", "snapshot", "counts  ", "page by ", "stored  ",
	};
	uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t random = next_random(&state);

		at[i] = is_text ? *(const uint64_t *)(const void *)words[random >> 61] : random;
	}
}

static const char *parse_decimal(const char *text, uint64_t *value)
{
	*value = 0;
	while (*text == ' ')
		text++;
	for (; *text >= '0' && *text <= '9' && *value <= MAX_MIB; text++)
		*value = *value * 10 + (uint64_t)(*text - '0');
	return text;
}

static void obey(const char *line)
{
	const char *of_text = after(line, "text "), *of_noise = after(line, "fill ");
	uint64_t seed = 0, mib = 0;
	long memory;

	if (of_text == 0 && of_noise == 0) {
		print("ERROR unknown command\n");
		return;
	}
	parse_decimal(parse_decimal(of_text != 0 ? of_text : of_noise, &seed), &mib);
	if (mib == 0 || mib > MAX_MIB) {
		print("ERROR bad size\n");
		return;
	}
	memory = CALL6(mmap, 0, mib << MIB_SHIFT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory < 0 && memory > -4096) {
		print("ERROR no memory\n");
		return;
	}
	fill((uint64_t *)memory, (mib << MIB_SHIFT) / sizeof(uint64_t), seed, of_text != 0);
	print(of_text != 0 ? "OK text: " : "OK fill: ");
	print_decimal(mib);
	print(" MiB used\n");
}

/* The terminal gives whole lines. */
static void read_line(void)
{
	static char line[LINE_BYTES];
	long length = CALL(read, 0, line, sizeof(line) - 1, 0, 0);

	if (length <= 0)
		return;
	line[length] = 0;
	if (line[0] != '\n')
		obey(line);
}

__attribute__((used)) static void run(void)
{
	uint64_t nonce = 0, ticks = 0, due_ns;

	open_terminal();
	if (CALL(getrandom, &nonce, sizeof(nonce), INSECURE, 0, 0) != sizeof(nonce))
		nonce = __builtin_ia32_rdtsc();
	for (due_ns = now_ns() + TICK_NS;;) {
		struct pollfd input = { .fd = 0, .events = POLLIN };
		uint64_t now = now_ns();
		struct __kernel_timespec left = { .tv_nsec = now < due_ns ? (long long)(due_ns - now) : 0 };

		if (CALL(ppoll, &input, 1, &left, 0, 0) > 0)
			read_line();
		now = now_ns();
		if (now < due_ns)
			continue;
		print("TICK ");
		print_decimal(++ticks);
		print(" nonce=");
		print_hex(nonce);
		print("\n");
		/* After a pause there is no burst. */
		due_ns = due_ns + TICK_NS < now ? now + TICK_NS : due_ns + TICK_NS;
	}
}

/* The kernel enters with the stack aligned to 16 bytes, where the compiler expects a return address to lie. */
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tcall run\n");
