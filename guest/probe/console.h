/* The first serial port: lines in by its interrupt, bytes out in bursts. */
#ifndef PROBE_CONSOLE_H
#define PROBE_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest line that is obeyed. */
#define LINE_BYTES 127

void console_start(void);

/* Writes all of it before it returns. */
void console_write(const char *text, size_t bytes);

/* Takes in what has come. To be called after a serial interrupt, and only then. */
void console_receive(void);

enum line { LINE_NONE, LINE_READY, LINE_TOO_LONG };

/* The next line that has ended, into `line` with a terminator instead of its \r or \n; empty lines are skipped. */
enum line console_next_line(char line[LINE_BYTES + 1]);

#endif
