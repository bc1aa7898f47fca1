/*
 * A load for tests of saving and restoring, and its own witness. Arguments start its parts:
 *
 *   locks=THREADS      threads count under one lock; thread n runs on vCPU n modulo their number
 *   disk=DIRECTORY     writes numbered records and files there, with fdatasync and rename
 *   echo=PORT          returns what connections send to this TCP port
 *   tcp=ADDRESS:PORT   sends numbered lines to such an echo and compares the answers
 *
 * It prints `LOAD READY nonce=<16 hex>`. A line on its standard input, `locks`, `disk` or `tcp`, is answered with one
 * line by that part, and `nonce` with `NONCE <16 hex>`. `quit` and the end of input end it. A failure is a line
 * `LOAD FAILED …` and exit status 1.
 */
#include <asm/signal.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/sched.h>
#include <linux/time_types.h>

#include "load.h"

#define STACK_BYTES 65536
#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

uint64_t nonce;

/* The compiler may call these. */
void *memcpy(void *to, const void *from, unsigned long bytes)
{
	void *start = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
	return start;
}

void *memset(void *to, int value, unsigned long bytes)
{
	void *start = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
	return start;
}

void put(struct line *line, const char *text)
{
	while (*text != 0 && line->length < sizeof(line->text))
		line->text[line->length++] = *text++;
}

void put_decimal(struct line *line, uint64_t value)
{
	char digits[21];
	char *digit = digits + sizeof(digits);

	*--digit = 0;
	do {
		*--digit = (char)('0' + value % 10);
		value /= 10;
	} while (value != 0);
	put(line, digit);
}

void put_hex(struct line *line, uint64_t value)
{
	char digits[17];

	digits[16] = 0;
	for (int i = 15; i >= 0; i--, value >>= 4)
		digits[i] = "0123456789abcdef"[value & 15];
	put(line, digits);
}

void print_line(struct line *line)
{
	put(line, "\n");
	CALL(write, 1, line->text, line->length, 0, 0);
	line->length = 0;
}

const char *parse_decimal(const char *text, uint64_t *value)
{
	for (*value = 0; *text >= '0' && *text <= '9'; text++)
		*value = *value * 10 + (uint64_t)(*text - '0');
	return text;
}

_Noreturn void fail(const char *what, long result)
{
	struct line line = { .length = 0 };

	put(&line, "LOAD FAILED at ");
	put(&line, what);
	put(&line, ", errno ");
	put_decimal(&line, result < 0 ? (uint64_t)-result : 0);
	print_line(&line);
	for (;;)
		CALL(exit_group, 1, 0, 0, 0, 0);
}

void sleep_ms(long ms)
{
	struct __kernel_timespec time = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	CALL(nanosleep, &time, 0, 0, 0, 0);
}

void start_thread(void (*run)(long), long argument)
{
	long stack = CALL6(mmap, 0, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long *top = (long *)(stack + STACK_BYTES) - 2;
	long result;

	if (stack < 0 && stack > -4096)
		fail("mmap", stack);
	top[0] = (long)run;
	top[1] = argument;
	/* The child takes its function and argument from its new stack, which is then aligned as for a call. */
	__asm__ volatile("xor %%edx, %%edx\n\txor %%r10d, %%r10d\n\txor %%r8d, %%r8d\n\tsyscall\n\t"
			 "test %%rax, %%rax\n\tjnz 1f\n\t"
			 "pop %%rax\n\tpop %%rdi\n\txor %%ebp, %%ebp\n\tcall *%%rax\n\thlt\n1:"
			 : "=a"(result)
			 : "a"(__NR_clone), "D"(THREAD_FLAGS), "S"(top)
			 : "rcx", "rdx", "r8", "r10", "r11", "memory");
	if (result < 0)
		fail("clone", result);
}

static int same(const char *a, const char *b)
{
	const char *rest = after(a, b);

	return rest != 0 && *rest == 0;
}

static void nonce_answer(void)
{
	struct line line = { .length = 0 };

	put(&line, "NONCE ");
	put_hex(&line, nonce);
	print_line(&line);
}

static void answer(const char *line)
{
	if (same(line, "locks"))
		locks_answer();
	else if (same(line, "disk"))
		disk_answer();
	else if (same(line, "tcp"))
		tcp_answer();
	else if (same(line, "nonce"))
		nonce_answer();
	else if (same(line, "quit"))
		CALL(exit_group, 0, 0, 0, 0, 0);
	else
		print("LOAD knows locks, disk, tcp, nonce and quit\n");
}

static void start_part(const char *argument)
{
	const char *value;
	uint64_t threads;

	if ((value = after(argument, "locks=")) != 0) {
		parse_decimal(value, &threads);
		locks_start(threads);
	} else if ((value = after(argument, "disk=")) != 0)
		disk_start(value);
	else if ((value = after(argument, "echo=")) != 0)
		echo_start(value);
	else if ((value = after(argument, "tcp=")) != 0)
		tcp_start(value);
	else
		fail(argument, 0);
}

__attribute__((used)) static void run(const long *stack)
{
	long arguments = stack[0];
	static char text[256];
	unsigned long length = 0;
	struct line ready = { .length = 0 };

	CALL(getrandom, &nonce, sizeof(nonce), 0, 0, 0);
	for (long i = 1; i < arguments; i++)
		start_part((const char *)stack[1 + i]);
	put(&ready, "LOAD READY nonce=");
	put_hex(&ready, nonce);
	print_line(&ready);
	for (;;) {
		long got = CALL(read, 0, text + length, 1, 0, 0);

		if (got <= 0)
			CALL(exit_group, 0, 0, 0, 0, 0);
		if (text[length] != '\n') {
			length += length < sizeof(text) - 1;
			continue;
		}
		text[length] = 0;
		length = 0;
		answer(text);
	}
}

/* The kernel enters with argc at the stack pointer, which is aligned to 16 bytes. */
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tcall run\n");
