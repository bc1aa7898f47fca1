/*
 * Threads that count under one spin lock (xchg) and by `lock xadd`, one on each vCPU. A thread keeps its own share in
 * registers for a batch. If a restore loses or repeats anything of one vCPU or of RAM, the shares no longer add up.
 * The TSCs of the vCPUs are compared under the lock.
 */
#include "load.h"

#define MAX_THREADS 64
#define BATCH 512
/* A thread sleeps for a moment after so many batches, so that timers and idle vCPUs take part. */
#define BATCHES_AWAKE 256

static struct {
	volatile uint32_t lock __attribute__((aligned(64)));
	uint64_t locked, last_tsc, warps;
	volatile uint64_t added __attribute__((aligned(64)));
	volatile uint32_t is_on __attribute__((aligned(64)));
} load;

static struct {
	volatile uint64_t locked, added;
	volatile uint32_t is_running;
} shares[MAX_THREADS] __attribute__((aligned(64)));

static uint64_t threads;

static void take_lock(void)
{
	uint32_t taken = 1;

	for (;;) {
		__asm__ volatile("xchgl %0, %1" : "+r"(taken), "+m"(load.lock) : : "memory");
		if (!taken)
			return;
		/* The holder may wait for this vCPU. */
		for (int spins = 0; load.lock; spins++) {
			if (spins < 10000)
				__asm__ volatile("pause");
			else
				CALL(sched_yield, 0, 0, 0, 0, 0);
		}
	}
}

static void release_lock(void)
{
	__asm__ volatile("" : : : "memory");
	load.lock = 0;
}

static uint64_t ordered_rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

static void count_batch(long thread)
{
	uint64_t locked = 0, added = 0;

	for (uint32_t i = 0; i < BATCH; i++) {
		uint64_t tsc, one = 1;

		take_lock();
		load.locked++;
		tsc = ordered_rdtsc();
		load.warps += tsc < load.last_tsc;
		load.last_tsc = tsc;
		release_lock();
		locked++;
		__asm__ volatile("lock xaddq %0, %1" : "+r"(one), "+m"(load.added) : : "memory", "cc");
		added++;
	}
	shares[thread].locked += locked;
	shares[thread].added += added;
}

static void count(long thread)
{
	uint64_t mask = 1ul << thread;

	/* A machine with fewer vCPUs lets the thread run on any. */
	CALL(sched_setaffinity, 0, sizeof(mask), &mask, 0, 0);
	for (;;) {
		shares[thread].is_running = 1;
		/* Before the read of `is_on`: locks_answer sees this flag, or this thread sees that the load is off. */
		__asm__ volatile("mfence" : : : "memory");
		for (int batches = 0; load.is_on && batches < BATCHES_AWAKE; batches++)
			count_batch(thread);
		__asm__ volatile("" : : : "memory");
		shares[thread].is_running = 0;
		sleep_ms(1);
	}
}

void locks_start(uint64_t count_of_threads)
{
	threads = count_of_threads < MAX_THREADS ? count_of_threads : MAX_THREADS;
	load.is_on = 1;
	for (uint64_t thread = 0; thread < threads; thread++)
		start_thread(count, (long)thread);
}

void locks_answer(void)
{
	uint64_t locked_sum = 0, added_sum = 0;
	struct line line = { .length = 0 };

	load.is_on = 0;
	__asm__ volatile("mfence" : : : "memory");
	for (uint64_t thread = 0; thread < threads; thread++) {
		while (shares[thread].is_running)
			sleep_ms(1);
		locked_sum += shares[thread].locked;
		added_sum += shares[thread].added;
	}
	put(&line, "LOCKS locked=");
	put_decimal(&line, load.locked);
	put(&line, "/");
	put_decimal(&line, locked_sum);
	put(&line, " added=");
	put_decimal(&line, load.added);
	put(&line, "/");
	put_decimal(&line, added_sum);
	put(&line, " warps=");
	put_decimal(&line, load.warps);
	load.is_on = 1;
	print_line(&line);
}
