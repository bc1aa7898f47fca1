/*
 * A thread that sends numbered lines over one TCP connection and compares what comes back, and an echo for it. The
 * connection is made once: a line that is lost, doubled or changed, or a connection that ends, is a failure.
 */
#include <asm/socket.h>
#include <linux/in.h>

#include "load.h"

#define STREAM 1
#define PAUSE_MS 20

static volatile uint64_t echoed;

static uint16_t big_endian(uint64_t port)
{
	return (uint16_t)(port >> 8 & 0xff) | (uint16_t)((port & 0xff) << 8);
}

static void write_all(long fd, const char *bytes, unsigned long length)
{
	while (length > 0) {
		long sent = CALL(write, fd, bytes, length, 0, 0);

		if (sent <= 0)
			fail("write to a connection", sent);
		bytes += sent;
		length -= (unsigned long)sent;
	}
}

static void exchange(long fd)
{
	for (uint64_t number = 1;; number++) {
		struct line line = { .length = 0 };
		char byte;

		put_decimal(&line, number);
		put(&line, " ");
		put_hex(&line, nonce);
		put(&line, "\n");
		write_all(fd, line.text, line.length);
		for (unsigned long i = 0; i < line.length; i++) {
			long got = CALL(read, fd, &byte, 1, 0, 0);

			if (got != 1)
				fail("read from the connection", got);
			if (byte != line.text[i])
				fail("comparison of an echo", 0);
		}
		echoed = number;
		sleep_ms(PAUSE_MS);
	}
}

void tcp_start(const char *address)
{
	struct sockaddr_in to = { .sin_family = 2 };
	uint8_t *bytes = (uint8_t *)&to.sin_addr;
	uint64_t value;
	long fd = CALL(socket, to.sin_family, STREAM, 0, 0, 0), result;

	if (fd < 0)
		fail("socket", fd);
	for (int i = 0; i < 4; i++) {
		address = parse_decimal(address, &value);
		bytes[i] = (uint8_t)value;
		address += *address != 0;
	}
	parse_decimal(address, &value);
	to.sin_port = big_endian(value);
	result = CALL(connect, fd, &to, sizeof(to), 0, 0);
	if (result < 0)
		fail("connect", result);
	start_thread(exchange, fd);
}

void tcp_answer(void)
{
	struct line line = { .length = 0 };

	put(&line, "TCP echoed=");
	put_decimal(&line, echoed);
	print_line(&line);
}

static void echo(long fd)
{
	char bytes[512];

	for (;;) {
		long got = CALL(read, fd, bytes, sizeof(bytes), 0, 0);

		if (got <= 0)
			fail("read of the echo", got);
		write_all(fd, bytes, (unsigned long)got);
	}
}

static void serve(long listener)
{
	for (;;) {
		long fd = CALL(accept, listener, 0, 0, 0, 0);

		if (fd < 0)
			fail("accept", fd);
		start_thread(echo, fd);
	}
}

void echo_start(const char *port)
{
	struct sockaddr_in at = { .sin_family = 2 };
	uint64_t number;
	long fd = CALL(socket, at.sin_family, STREAM, 0, 0, 0), result;

	if (fd < 0)
		fail("socket", fd);
	parse_decimal(port, &number);
	at.sin_port = big_endian(number);
	result = CALL(bind, fd, &at, sizeof(at), 0, 0);
	if (result < 0)
		fail("bind", result);
	CALL(listen, fd, 8, 0, 0, 0);
	start_thread(serve, fd);
}
