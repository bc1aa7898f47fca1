/* System calls and a few helpers for programs without a C library. */
#ifndef LINUX_SYSTEM_H
#define LINUX_SYSTEM_H

#include <stdint.h>
#include <sys/syscall.h>

static inline long system_call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

#define CALL6(name, a, b, c, d, e, f) \
	system_call(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define CALL(name, a, b, c, d, e) CALL6(name, a, b, c, d, e, 0)

static inline unsigned long length_of(const char *text)
{
	unsigned long length = 0;

	while (text[length] != 0)
		length++;
	return length;
}

static inline void print(const char *text)
{
	CALL(write, 1, text, length_of(text), 0, 0);
}

/* Where `text` continues after `prefix`; null if it does not begin with it. */
static inline const char *after(const char *text, const char *prefix)
{
	while (*prefix != 0)
		if (*text++ != *prefix++)
			return 0;
	return text;
}

#endif
