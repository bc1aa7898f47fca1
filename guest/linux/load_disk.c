/*
 * A thread that writes to a file system as programs do that must not lose data. It appends numbered records to
 * DIRECTORY/records, with fdatasync after every SYNC_RECORDS. After every FILE_RECORDS it writes a new file beside it,
 * syncs it, renames it, and removes the oldest, so that the file system's own structures change all the time.
 *
 * A record is 64 bytes: its number from 1, the nonce of the process, and both mixed, in hexadecimal. Unused bytes are
 * spaces, the last one is a line feed.
 */
#include <asm/fcntl.h>
#include <linux/mman.h>

#include "load.h"

#define RECORD_BYTES 64
#define SYNC_RECORDS 8
#define FILE_RECORDS 32
#define FILE_BYTES 16384
#define FILES_KEPT 8
#define BLOCK_BYTES 4096

static const char *directory;
static volatile uint64_t written, synced;

static uint64_t mix(uint64_t value)
{
	value ^= nonce;
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
	return value ^ value >> 27;
}

static void format_record(char record[RECORD_BYTES], uint64_t number)
{
	struct line line = { .length = 0 };

	put_hex(&line, number);
	put(&line, " ");
	put_hex(&line, nonce);
	put(&line, " ");
	put_hex(&line, mix(number));
	for (unsigned long i = 0; i < RECORD_BYTES; i++)
		record[i] = i < line.length ? line.text[i] : ' ';
	record[RECORD_BYTES - 1] = '\n';
}

static const char *path_of(struct line *path, const char *name, uint64_t number)
{
	path->length = 0;
	put(path, directory);
	put(path, "/");
	put(path, name);
	if (number != 0)
		put_decimal(path, number);
	path->text[path->length < sizeof(path->text) ? path->length : sizeof(path->text) - 1] = 0;
	return path->text;
}

static void must(const char *what, long result)
{
	if (result < 0)
		fail(what, result);
}

static void write_file(uint64_t number)
{
	static char contents[FILE_BYTES];
	struct line temporary, path;
	long fd = CALL(open, path_of(&temporary, "new", 0), O_WRONLY | O_CREAT | O_TRUNC, 0644, 0, 0);

	must("open", fd);
	for (unsigned long at = 0; at < FILE_BYTES; at += RECORD_BYTES)
		format_record(contents + at, number);
	must("write of a file", CALL(write, fd, contents, FILE_BYTES, 0, 0));
	must("fsync", CALL(fsync, fd, 0, 0, 0, 0));
	CALL(close, fd, 0, 0, 0, 0);
	must("rename", CALL(rename, temporary.text, path_of(&path, "file-", number), 0, 0, 0));
	if (number > FILES_KEPT)
		must("unlink", CALL(unlink, path_of(&path, "file-", number - FILES_KEPT), 0, 0, 0, 0));
}

static void write_records(long fd)
{
	char record[RECORD_BYTES];

	for (uint64_t number = 1;; number++) {
		format_record(record, number);
		if (CALL(write, fd, record, RECORD_BYTES, 0, 0) != RECORD_BYTES)
			fail("write of a record", 0);
		written = number;
		if (number % SYNC_RECORDS == 0) {
			must("fdatasync", CALL(fdatasync, fd, 0, 0, 0, 0));
			synced = number;
		}
		if (number % FILE_RECORDS == 0)
			write_file(number / FILE_RECORDS);
		sleep_ms(1);
	}
}

void disk_start(const char *where)
{
	struct line path;
	long fd;

	directory = where;
	CALL(mkdir, where, 0755, 0, 0, 0);
	fd = CALL(open, path_of(&path, "records", 0), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644, 0, 0);
	must("open of the records", fd);
	start_thread(write_records, fd);
}

/* Reads the synced records from the disk itself (O_DIRECT) and compares them. Returns how many are right. */
static uint64_t check_records(uint64_t count)
{
	static char block[BLOCK_BYTES] __attribute__((aligned(BLOCK_BYTES)));
	char record[RECORD_BYTES];
	struct line path;
	long fd = CALL(open, path_of(&path, "records", 0), O_RDONLY | O_DIRECT, 0, 0, 0);
	uint64_t number = 0;

	must("open to check", fd);
	for (long got = 1; number < count && got > 0;) {
		got = CALL(read, fd, block, BLOCK_BYTES, 0, 0);
		must("read to check", got);
		for (long at = 0; at + RECORD_BYTES <= got && number < count; at += RECORD_BYTES) {
			format_record(record, number + 1);
			for (int i = 0; i < RECORD_BYTES; i++)
				if (block[at + i] != record[i])
					goto wrong;
			number++;
		}
	}
wrong:
	CALL(close, fd, 0, 0, 0, 0);
	return number;
}

void disk_answer(void)
{
	struct line line = { .length = 0 };
	uint64_t count = synced;

	put(&line, "DISK right=");
	put_decimal(&line, check_records(count));
	put(&line, "/");
	put_decimal(&line, count);
	put(&line, " written=");
	put_decimal(&line, written);
	print_line(&line);
}
