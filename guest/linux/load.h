/*
 * The parts of `load` (load.c), each on threads of its own. Every part has a start function and one that prints its
 * answer. Numbers in an answer are decimal.
 */
#ifndef LINUX_LOAD_H
#define LINUX_LOAD_H

#include "system.h"

/* A number that only this process has, made when it starts. */
extern uint64_t nonce;

/* Ends the process with the name of what failed and the errno. */
_Noreturn void fail(const char *what, long result);

/* Runs `run(argument)` on a new thread. `run` must not return. */
void start_thread(void (*run)(long), long argument);

void sleep_ms(long ms);

/* A line of output. print_line writes it at once and empties it. */
struct line {
	char text[256];
	unsigned long length;
};
void put(struct line *line, const char *text);
void put_decimal(struct line *line, uint64_t value);
void put_hex(struct line *line, uint64_t value);
void print_line(struct line *line);

/* Parses a decimal number, which ends at any other character. Returns where. */
const char *parse_decimal(const char *text, uint64_t *value);

/* load_locks.c */
void locks_start(uint64_t threads);
void locks_answer(void);

/* load_disk.c */
void disk_start(const char *directory);
void disk_answer(void);

/* load_tcp.c */
void echo_start(const char *port);
void tcp_start(const char *address);
void tcp_answer(void);

#endif
