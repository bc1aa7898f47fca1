/* The first serial port: input lines by interrupt, output in bursts. */
#ifndef PROBE_CONSOLE_H
#define PROBE_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest command line. */
#define LINE_BYTES 127

void console_start(void);

/* Returns when all bytes are written. */
void console_write(const char *text, size_t bytes);

/* Reads the received bytes. Call it only after a serial interrupt. */
void console_receive(void);

enum line { LINE_NONE, LINE_READY, LINE_TOO_LONG };

/* Copies the next complete line to `line`, with a NUL instead of its \r or \n. Skips empty lines. */
enum line console_next_line(char line[LINE_BYTES + 1]);

#endif
