/*
 * The probe: prints READY, ticks five times a second, and runs commands (README.md has the protocol).
 *
 * It is one loop on the boot vCPU. A long command checks `pending` between pages and calls attend(), which reads
 * input, prints ticks, dirties pages and sets the timer. A line of output is written whole before another begins.
 *
 * Invariants: the nonce exists only in this RAM and on the console; all time is from kvmclock; a page of the area is
 * touched only by a command that names it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "console.h"
#include "firmware.h"
#include "layout.h"
#include "load.h"
#include "machine.h"
#include "pages.h"

#define MIB 1048576ull
#define PAGES_PER_MIB (MIB / PAGE_SIZE)
#define SECOND_NS 1000000000ull
#define TICK_NS (SECOND_NS / 5)
#define DIRTY_NS (SECOND_NS / 25)
#define REDRAW_NS (SECOND_NS / 10)
#define NEVER UINT64_MAX

#define MAX_DIRTY_PAGES_PER_SECOND 1000000
#define MAX_BAR_SECONDS 86400
#define MAX_MIB ((uint64_t)MAX_MAPPED_GIB << 10)
#define BAR_CELLS 40
#define DIRTY_SHARE 8 /* `dirty` has this fraction (1 / 8) of the RAM from AREA_BASE on */

#define SLEEP_S5 0x3400 /* SLP_TYP 5, SLP_EN */
#define I8042_COMMAND 0x64
#define I8042_RESET 0xfe

#define CPUID_RDRAND (1u << 30)

static struct firmware firmware;
static uint64_t nonce;
static uint32_t cpus;

static uint64_t area_pages, area_used_pages;
static uint64_t dirty_pages; /* directly after the area */

static uint64_t timer_irqs_seen, uart_irqs_seen;
static uint64_t tick_number, tick_due_ns = NEVER;
static uint64_t dirty_rate, dirty_due_ns = NEVER, dirty_credit, dirty_next_page, dirty_sequence;
static uint64_t wake_ns = NEVER, armed_ns = NEVER;
static bool drawing; /* the cursor is after an unfinished progress bar */
static bool clock_failed;

extern uint8_t image_bss[], image_end[];

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
  void *start = to;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes)::"memory");
  return start;
}

void *memset(void *to, int value, size_t bytes) {
  void *start = to;
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
  return start;
}

/* A line of output, or a part of one, which is written at once. */
static char out[256];
static size_t out_bytes;

static void put(const char *text) {
  while (*text && out_bytes < sizeof out) out[out_bytes++] = *text++;
}

static void put_decimal(uint64_t value) {
  char digits[21];
  digits[format_decimal(digits, value)] = 0;
  put(digits);
}

static void put_hex(uint64_t value) {
  char digits[17] = {0};
  for (int i = 15; i >= 0; i--, value >>= 4) digits[i] = "0123456789abcdef"[value & 15];
  put(digits);
}

static void send(void) {
  console_write(out, out_bytes);
  out_bytes = 0;
}

/* Clears an unfinished bar (erase, one line up, and down again), so that the next output begins a line. */
static void begin_line(void) {
  if (drawing) put("\r\x1b[K\x1b[A\r\n");
  drawing = false;
}

static void end_line(void) {
  put("\r\n");
  send();
}

static void *ram_page(uint64_t page) {
  const struct ram_range *range = firmware.ram;
  for (; page >= range->size / PAGE_SIZE; range++) page -= range->size / PAGE_SIZE;
  return (void *)(range->gpa + page * PAGE_SIZE);
}

static void divide_ram(void) {
  uint64_t pages = 0;
  for (uint32_t i = 0; i < firmware.ram_ranges; i++) pages += firmware.ram[i].size / PAGE_SIZE;
  area_pages = (pages - pages / DIRTY_SHARE) / PAGES_PER_MIB * PAGES_PER_MIB;
  dirty_pages = pages - area_pages;
}

static uint64_t dirty_period_ns(void) {
  return dirty_rate * DIRTY_NS >= SECOND_NS ? DIRTY_NS : SECOND_NS / dirty_rate;
}

static void dirty_some(uint64_t now_ns) {
  uint64_t period_ns = dirty_period_ns();
  for (dirty_credit += dirty_rate * period_ns; dirty_credit >= SECOND_NS; dirty_credit -= SECOND_NS) {
    page_fill(ram_page(area_pages + dirty_next_page), nonce, dirty_sequence++);
    dirty_next_page = (dirty_next_page + 1) % dirty_pages;
  }
  dirty_due_ns += period_ns;
  if (dirty_due_ns + period_ns < now_ns) dirty_due_ns = now_ns; /* too late to catch up */
}

static void tick(uint64_t now_ns) {
  begin_line();
  put("TICK ");
  put_decimal(++tick_number);
  put(" nonce=");
  put_hex(nonce);
  end_line();
  tick_due_ns += TICK_NS;
  if (tick_due_ns < now_ns) tick_due_ns = now_ns + TICK_NS; /* after a pause: no burst */
}

static void report_clock(const char *fault) {
  clock_failed = true;
  tick_due_ns = dirty_due_ns = NEVER;
  begin_line();
  put("FAULT ");
  put(fault);
  end_line();
}

/* Does all work besides commands. Call it whenever an interrupt is pending. */
static void attend(void) {
  struct cpu *cpu = cpu_block(0);
  cpu->pending = 0;
  uint64_t timer_irqs = cpu->timer_irqs, uart_irqs = cpu->uart_irqs;
  if (timer_irqs != timer_irqs_seen) {
    cpu->count += timer_irqs - timer_irqs_seen;
    timer_irqs_seen = timer_irqs;
    armed_ns = NEVER;
  }
  if (uart_irqs != uart_irqs_seen) {
    uart_irqs_seen = uart_irqs;
    console_receive();
  }
  uint64_t now_ns = machine_now_ns();
  const char *fault = machine_clock_fault();
  if (fault && !clock_failed) report_clock(fault);
  if (now_ns >= tick_due_ns) tick(now_ns);
  if (now_ns >= dirty_due_ns) dirty_some(now_ns);
  uint64_t next_ns = tick_due_ns < dirty_due_ns ? tick_due_ns : dirty_due_ns;
  if (wake_ns < next_ns) next_ns = wake_ns;
  if (next_ns < armed_ns) {
    armed_ns = next_ns;
    machine_set_timer(next_ns, now_ns);
  }
}

static inline void breathe(void) {
  if (machine_pending()) attend();
}

/* A command has one line as its answer: `reply` begins it, end_line ends it. */
static void reply(const char *text) {
  begin_line();
  put(text);
}

static void command_write(const char *name, void (*make)(void *, uint64_t, uint64_t), uint64_t seed, uint64_t mib) {
  uint64_t left_mib = (area_pages - area_used_pages) / PAGES_PER_MIB;
  if (mib > left_mib) {
    reply("ERR area full: ");
    put_decimal(left_mib);
    put(" of ");
    put_decimal(area_pages / PAGES_PER_MIB);
    put(" MiB left");
    return;
  }
  for (uint64_t page = 0; page < mib * PAGES_PER_MIB; page++) {
    make(ram_page(area_used_pages++), seed, page);
    breathe();
  }
  reply("OK ");
  put(name);
  put(": ");
  put_decimal(area_used_pages / PAGES_PER_MIB);
  put(" of ");
  put_decimal(area_pages / PAGES_PER_MIB);
  put(" MiB used");
}

static void command_fill(const uint64_t *args) { command_write("fill", page_fill, args[0], args[1]); }

static void command_text(const uint64_t *args) { command_write("text", page_text, args[0], args[1]); }

static void command_sum(const uint64_t *args) {
  if (args[0] > area_pages / PAGES_PER_MIB) {
    reply("ERR the area has ");
    put_decimal(area_pages / PAGES_PER_MIB);
    put(" MiB");
    return;
  }
  struct xxh64 state;
  xxh64_start(&state);
  for (uint64_t page = 0; page < args[0] * PAGES_PER_MIB; page++) {
    xxh64_page(&state, ram_page(page));
    breathe();
  }
  reply("SUM ");
  put_hex(xxh64_end(&state));
}

static void command_dirty(const uint64_t *args) {
  if (!dirty_pages) return reply("ERR there is no RAM to rewrite");
  dirty_rate = args[0];
  dirty_credit = 0;
  dirty_due_ns = dirty_rate ? machine_now_ns() : NEVER;
  reply("OK dirty: ");
  put_decimal(dirty_rate);
  put(" pages a second");
}

static void draw_bar(uint64_t percent) {
  put("\r[");
  for (uint64_t cell = 0; cell < BAR_CELLS; cell++) put(cell < percent * BAR_CELLS / 100 ? "#" : " ");
  put("] ");
  if (percent < 100) put(percent < 10 ? "  " : " ");
  put_decimal(percent);
  put("%");
  send();
  drawing = true;
}

static void command_bar(const uint64_t *args) {
  uint64_t start_ns = machine_now_ns(), total_ns = args[0] * SECOND_NS;
  for (;;) {
    uint64_t elapsed_ns = machine_now_ns() - start_ns;
    if (elapsed_ns >= total_ns) break;
    draw_bar(elapsed_ns * 100 / total_ns);
    wake_ns = start_ns + elapsed_ns + REDRAW_NS;
    for (attend(); drawing && machine_now_ns() < wake_ns; attend()) machine_idle();
    if (clock_failed) {
      wake_ns = NEVER;
      reply("ERR the clock failed");
      return;
    }
  }
  wake_ns = NEVER;
  draw_bar(100);
  drawing = false;
  put("\r\nOK bar: ");
  put_decimal(args[0]);
  put(" s");
}

static void command_cpus(const uint64_t *args) {
  (void)args;
  reply("CPUS ");
  for (uint32_t i = 0; i < cpus; i++) {
    if (i) put(",");
    put_decimal(cpu_block(i)->count);
    send();
  }
}

static void command_ids(const uint64_t *args) {
  (void)args;
  if (!machine_read_ids(cpus)) return reply("ERR a vCPU does not answer");
  reply("IDS ");
  for (uint32_t i = 0; i < cpus; i++) {
    const struct cpu *cpu = cpu_block(i);
    if (i) put(",");
    for (uint32_t source = 0; source < 3; source++) {
      if (source) put("/");
      put_decimal(cpu->ids[source]);
    }
    send();
  }
}

static void command_load(const uint64_t *args) {
  load_set(args[0]);
  reply(args[0] ? "OK load: on" : "OK load: off");
}

static void command_locks(const uint64_t *args) {
  (void)args;
  struct load_totals totals;
  load_read(cpus, &totals);
  reply("LOCKS locked=");
  put_decimal(totals.locked);
  put("/");
  put_decimal(totals.locked_sum);
  put(" added=");
  put_decimal(totals.added);
  put("/");
  put_decimal(totals.added_sum);
  put(" warps=");
  put_decimal(totals.warps);
}

/* Replies and returns false where the vCPU is no AP, or may hold the lock of the load. */
static bool may_start(uint64_t index) {
  if (index >= cpus) reply("ERR no such vCPU");
  else if (load_is_on()) reply("ERR the load is on");
  else return true;
  return false;
}

static void command_init(const uint64_t *args) {
  if (!may_start(args[0])) return;
  machine_init_cpu((uint32_t)args[0]);
  reply("OK init: ");
  put_decimal(args[0]);
}

static void command_startup(const uint64_t *args) {
  if (!may_start(args[0])) return;
  if (!machine_start_cpu((uint32_t)args[0])) return reply("ERR the vCPU does not answer");
  reply("OK startup: ");
  put_decimal(args[0]);
}

static void command_halt(const uint64_t *args) {
  (void)args;
  reply("OK halt");
  end_line();
  machine_stop_cpus();
  out16(firmware.pm1a_control_port, SLEEP_S5);
  machine_stop();
}

static void command_reset(const uint64_t *args) {
  (void)args;
  reply("OK reset");
  end_line();
  out8(I8042_COMMAND, I8042_RESET);
  machine_stop_cpus();
  machine_stop();
}

static const struct command {
  const char *name;
  void (*run)(const uint64_t *args);
  uint8_t args;
  uint64_t least[2], most[2];
} commands[] = {
    {"fill", command_fill, 2, {0, 1}, {UINT64_MAX, MAX_MIB}},
    {"text", command_text, 2, {0, 1}, {UINT64_MAX, MAX_MIB}},
    {"sum", command_sum, 1, {1}, {MAX_MIB}},
    {"dirty", command_dirty, 1, {0}, {MAX_DIRTY_PAGES_PER_SECOND}},
    {"bar", command_bar, 1, {1}, {MAX_BAR_SECONDS}},
    {"cpus", command_cpus, 0, {0}, {0}},
    {"ids", command_ids, 0, {0}, {0}},
    {"load", command_load, 1, {0}, {1}},
    {"locks", command_locks, 0, {0}, {0}},
    {"init", command_init, 1, {1}, {MAX_CPUS}},
    {"startup", command_startup, 1, {1}, {MAX_CPUS}},
    {"halt", command_halt, 0, {0}, {0}},
    {"reset", command_reset, 0, {0}, {0}},
};

/* The next word of `*line`, NUL-terminated; null at the end. */
static const char *next_word(char **line) {
  char *word = *line, *end;
  while (*word == ' ') word++;
  if (!*word) return NULL;
  for (end = word; *end && *end != ' ';) end++;
  *line = *end ? end + 1 : end;
  *end = 0;
  return word;
}

static bool parse_decimal(const char *word, uint64_t *value) {
  for (*value = 0; *word; word++)
    if (*word < '0' || *word > '9' || __builtin_mul_overflow(*value, 10, value) ||
        __builtin_add_overflow(*value, (uint64_t)(*word - '0'), value))
      return false;
  return true;
}

static bool same(const char *a, const char *b) {
  for (; *a && *a == *b; a++) b++;
  return *a == *b;
}

static void run(char *line) {
  const char *name = next_word(&line);
  const struct command *command = commands, *end = commands + sizeof commands / sizeof *commands;
  while (command < end && !(name && same(command->name, name))) command++;
  if (command == end) return reply("ERR unknown command");
  uint64_t args[2];
  for (uint8_t i = 0; i < command->args; i++) {
    const char *word = next_word(&line);
    if (!word) return reply("ERR a number is missing");
    if (!parse_decimal(word, &args[i]) || args[i] < command->least[i] || args[i] > command->most[i]) {
      reply("ERR bad number: from ");
      put_decimal(command->least[i]);
      put(" to ");
      put_decimal(command->most[i]);
      return;
    }
  }
  if (next_word(&line)) return reply("ERR too many words");
  command->run(args);
}

static uint64_t draw_nonce(void) {
  uint64_t random = 0;
  if (cpuid(1).ecx & CPUID_RDRAND) {
    uint8_t ok;
    __asm__ volatile("rdrand %0; setc %1" : "=r"(random), "=q"(ok)::"cc");
    if (!ok) random = 0;
  }
  return mix64(mix64(firmware.seed ^ random) ^ rdtsc());
}

static _Noreturn void fail(const char *why) {
  put("\r\nFAULT ");
  put(why);
  end_line();
  machine_stop();
}

/* The stub enters here after an exception, on a stack for this purpose. */
_Noreturn void probe_fault(uint64_t vector, uint64_t error, uint64_t rip, uint64_t address) {
  out_bytes = 0;
  put("\r\nFAULT vector=");
  put_decimal(vector);
  put(" error=");
  put_hex(error);
  put(" rip=");
  put_hex(rip);
  put(" address=");
  put_hex(address);
  end_line();
  machine_stop();
}

_Noreturn void probe_main(uint32_t index, uint64_t boot_params) {
  (void)index;
  memset(image_bss, 0, (size_t)(image_end - image_bss)); /* an image that is copied into place has no zeroed .bss */
  machine_open_ports();
  bool has_clock = machine_start();
  console_start();
  if (!has_clock) fail("this machine has no kvmclock");
  firmware_read(&firmware, boot_params);
  memory_map(firmware.ram, firmware.ram_ranges);
  divide_ram();
  nonce = draw_nonce();
  cpus = machine_start_cpus(firmware.lapic_ids, firmware.cpus);

  put("PROBE READY nonce=");
  put_hex(nonce);
  put(" cpus=");
  put_decimal(cpus);
  end_line();
  tick_due_ns = machine_now_ns() + TICK_NS;
  for (;;) {
    attend();
    static char line[LINE_BYTES + 1];
    switch (console_next_line(line)) {
      case LINE_NONE:
        load_run(0);
        machine_idle();
        continue;
      case LINE_READY:
        run(line);
        break;
      case LINE_TOO_LONG:
        reply("ERR line too long: 127 bytes at most");
    }
    end_line();
  }
}
