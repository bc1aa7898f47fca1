/*
 * A 16550A at 0x3f8. A port access costs an exit of 2 to 40 µs, so output polls the UART once per FIFO of 16 bytes.
 *
 * Invariants:
 * - The transmitter is empty between calls. Reading that is the last access of each burst, so that a machine which
 *   gathers writes (coalesced PIO) has received them all.
 * - The receiver is read only after an interrupt, until it is empty, because its interrupt is edge-triggered. While the
 *   ring is full the rest stays in the UART (`stalled`), and is read when a line is taken.
 *
 * Registers: TL16C550 data sheet. README.md lists what a machine must emulate.
 */
#include "console.h"

#include "machine.h"

#define PORT 0x3f8
#define DATA (PORT + 0)
#define INTERRUPT_ENABLE (PORT + 1)
#define INTERRUPT_ID (PORT + 2)
#define FIFO_CONTROL (PORT + 2)
#define LINE_CONTROL (PORT + 3)
#define MODEM_CONTROL (PORT + 4)
#define LINE_STATUS (PORT + 5)

#define IER_RECEIVED 0x01
#define IIR_FIFOS 0xc0
#define FCR_ENABLE 0x01 /* without clear: early input is kept */
#define LCR_8N1 0x03
#define LCR_DIVISOR 0x80
#define MCR_DTR_RTS_OUT2 0x0b /* OUT2 enables the interrupt on a PC */
#define LSR_DATA_READY 0x01
#define LSR_THR_EMPTY 0x20
#define FIFO_BYTES 16

#define RING_BYTES 4096 /* a power of two */

static uint32_t burst_bytes;
static char ring[RING_BYTES];
static uint32_t ring_head, ring_tail; /* free-running */
static bool stalled;
static char partial[LINE_BYTES];
static uint32_t partial_bytes; /* LINE_BYTES + 1: too long */

static void wait_for_transmitter(void) {
  while (!(in8(LINE_STATUS) & LSR_THR_EMPTY)) __asm__ volatile("pause");
}

void console_start(void) {
  out8(INTERRUPT_ENABLE, 0);
  out8(LINE_CONTROL, LCR_DIVISOR | LCR_8N1);
  out8(PORT, 1); /* 115200 baud */
  out8(PORT + 1, 0);
  out8(LINE_CONTROL, LCR_8N1);
  out8(FIFO_CONTROL, FCR_ENABLE);
  burst_bytes = (in8(INTERRUPT_ID) & IIR_FIFOS) == IIR_FIFOS ? FIFO_BYTES : 1;
  wait_for_transmitter();
  out8(MODEM_CONTROL, MCR_DTR_RTS_OUT2);
  out8(INTERRUPT_ENABLE, IER_RECEIVED);
}

void console_write(const char *text, size_t bytes) {
  while (bytes) {
    size_t count = bytes < burst_bytes ? bytes : burst_bytes;
    bytes -= count;
    __asm__ volatile("rep outsb" : "+S"(text), "+c"(count) : "d"(DATA) : "memory");
    wait_for_transmitter();
  }
}

void console_receive(void) {
  for (;;) {
    stalled = ring_head - ring_tail == RING_BYTES;
    if (stalled || !(in8(LINE_STATUS) & LSR_DATA_READY)) return;
    ring[ring_head++ % RING_BYTES] = (char)in8(DATA);
  }
}

enum line console_next_line(char line[LINE_BYTES + 1]) {
  for (;;) {
    if (ring_tail == ring_head) {
      if (!stalled) return LINE_NONE;
      console_receive();
      continue;
    }
    char c = ring[ring_tail++ % RING_BYTES];
    if (c != '\r' && c != '\n') {
      if (partial_bytes < LINE_BYTES) partial[partial_bytes] = c;
      if (partial_bytes <= LINE_BYTES) partial_bytes++;
      continue;
    }
    uint32_t bytes = partial_bytes;
    partial_bytes = 0;
    if (bytes == 0) continue;
    if (bytes > LINE_BYTES) return LINE_TOO_LONG;
    for (uint32_t i = 0; i < bytes; i++) line[i] = partial[i];
    line[bytes] = 0;
    return LINE_READY;
  }
}
